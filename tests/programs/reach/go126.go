//go:build go1.26

package main

import "weak"

// Before, the handle that weak pointers share may lie in one slot with what can be reached.
func init() {
	// Nobody has this one.
	more = append(more, maker{"lost weak pointer", func() {
		h := &holder{name: "weak", c: make(chan int)}
		_ = weak.Make(h)
		go func() {
			book(rolled.Leaked).here("lost weak pointer")
			<-h.c
			h.name = "woken"
		}()
	}})
}
