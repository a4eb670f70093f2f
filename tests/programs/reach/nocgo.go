//go:build !cgo

package main

func foreign() []maker { return nil }
