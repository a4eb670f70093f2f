//go:build go1.23

package main

import "iter"

// A coroutine that waits for its caller, and one whose function waits.
func more() {
	next, _ := iter.Pull(func(yield func(int) bool) {
		for yield(1) {
		}
	})
	next()
	go func() {
		next, _ := iter.Pull(func(yield func(int) bool) { <-never })
		next()
	}()
	go func() {
		for range func(yield func() bool) { yield() } {
			<-never
		}
	}()
}
