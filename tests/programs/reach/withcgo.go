//go:build cgo

package main

/*
#include <stdint.h>
#include <stdlib.h>

static uintptr_t *volatile cells[100];
static int used;
static void keep(uintptr_t word) {
	cells[used] = malloc(sizeof(uintptr_t));
	*cells[used++] = word;
}

extern void calledBack(void);
static void hold(uintptr_t word) {
	volatile uintptr_t here = word;
	calledBack();
	here++;
}
*/
import "C"

import (
	"time"
	"unsafe"
)

// Against the rules of cgo, and done all the same.
func foreign() []maker {
	return []maker{
		{"C memory", func() {
			C.keep(C.uintptr_t(word(wait("C memory"))))
		}},
		// The scheduler's stack of a thread that sleeps begins below it.
		{"C stack", func() {
			go func(word uintptr) { C.hold(C.uintptr_t(word)) }(word(wait("C stack")))
		}},
	}
}

func word(c chan int) uintptr { return *(*uintptr)(unsafe.Pointer(&c)) }

//export calledBack
func calledBack() { time.Sleep(24 * time.Hour) }
