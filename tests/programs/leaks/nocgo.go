//go:build !cgo

package main

func foreign() map[string]pattern { return nil }
