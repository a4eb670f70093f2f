//go:build cgo

package main

// static int twice(int x) { return 2 * x; }
import "C"

func init() {
	sink += int(C.twice(C.int(sink)))
}
