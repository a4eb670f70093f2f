//go:build go1.24

package main

import (
	"runtime"
	"weak"
)

var weaklings []weak.Pointer[holder]

func init() {
	more = append(more, maker{"cleanup", func() {
		c := wait("cleanup")
		runtime.AddCleanup(&holder{name: "cleaned"}, func(c chan int) { close(c) }, c)
	}})
	// The goroutine's own stack keeps the object, so that whoever has the weak pointer can get at it.
	more = append(more, maker{"weak pointer", func() {
		h := &holder{name: "weak", c: make(chan int)}
		weaklings = append(weaklings, weak.Make(h))
		go func() {
			book(rolled.Live).here("weak pointer")
			<-h.c
			h.name = "woken"
		}()
	}})
}
