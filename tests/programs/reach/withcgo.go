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
*/
import "C"

import "unsafe"

// Against the rules of cgo, and done all the same.
func foreign() []maker {
	return []maker{{"C memory", func() {
		c := wait("C memory")
		C.keep(C.uintptr_t(*(*uintptr)(unsafe.Pointer(&c))))
	}}}
}
