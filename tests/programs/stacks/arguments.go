package main

import (
	"context"
	"errors"
	"runtime/pprof"
)

// Calls whose arguments are of every kind that a traceback prints: words and parts of them, structs in structs, more than
// it prints, too deep and too far ones, those passed in registers and stale by the time the goroutine waits, results.
func arguments() {
	parked := []func(){
		func() { small(true, -1, 0xbeef, 'x', 1.5, 2.5) },
		func() { many(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12) },
		func() { nested(outermost{a: 1, in: middle{b: 2, in: innermost{[3]byte{1, 2, 3}, "four"}}}, 5) },
		func() { deep(d1{d2{d3{d4{d5{d6{1}, 2}, 3}, 4}, 5}, 6}) },
		func() { far([300]byte{1}, 2) },
		func() { headers("string", []int{1, 2}, map[string]int{}, make(chan int), errors.New("e"), 3) },
		func() { empty(struct{}{}, [0]int{}, 7) },
		func() { stale(1, 2, "three") },
		func() { results(1) },
		func() { (&receiver{5}).pointer(6) },
		func() { receiver{7}.value(8) },
		func() { closure(9)(10) },
		func() { rest(1, "two", 3.0) },
		func() { manyWords(words{1, 2, 3, 4, 5, 6}, words{7, 8, 9, 10, 11, 12}) },
		oddLabels,
	}
	for _, f := range parked {
		go f()
	}
}

//go:noinline
func small(a bool, b int8, c uint16, d rune, e float32, f float64) { <-never }

//go:noinline
func many(a, b, c, d, e, f, g, h, i, j, k, l int) int { <-never; return a + l }

type innermost struct {
	bytes [3]byte
	text  string
}
type middle struct {
	b  uint32
	in innermost
}
type outermost struct {
	a  uint8
	in middle
}

//go:noinline
func nested(o outermost, n int) { <-never }

type d6 struct{ n int }
type d5 struct {
	d6
	n int
}
type d4 struct {
	d5
	n int
}
type d3 struct {
	d4
	n int
}
type d2 struct {
	d3
	n int
}
type d1 struct {
	d2
	n int
}

//go:noinline
func deep(d d1) { <-never }

//go:noinline
func far(a [300]byte, b int) { <-never }

//go:noinline
func headers(a string, b []int, c map[string]int, d chan int, e error, f interface{}) { <-never }

//go:noinline
func empty(a struct{}, b [0]int, c int) { <-never }

//go:noinline
func stale(a, b int, c string) int {
	n := use(a, b, len(c))
	<-never
	return n
}

//go:noinline
func use(a, b, c int) int { return a + b*c }

//go:noinline
func results(a int) (b int, err error) {
	defer func() { <-never }()
	b = use(a, a, a)
	return b, nil
}

type receiver struct{ n int }

//go:noinline
func (r *receiver) pointer(n int) { <-never; r.n = n }

//go:noinline
func (r receiver) value(n int) { <-never }

//go:noinline
func closure(n int) func(int) {
	return func(m int) { <-never; println(n, m) }
}

//go:noinline
func rest(all ...interface{}) { <-never }

type words struct{ a, b, c, d, e, f int }

//go:noinline
func manyWords(v, w words) { <-never }

func oddLabels() {
	labels := pprof.Labels("plain", "/api/v1.users_2", "with space", `a "quoted" \ thing`, "empty", "", "z", "tab\tumlaut ä \U0001f600\x01\x7f")
	pprof.Do(context.Background(), labels, func(context.Context) { <-never })
}
