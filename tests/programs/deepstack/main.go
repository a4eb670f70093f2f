// Command deepstack has goroutines wait, start others and end at every depth of their stacks, so that for some of them
// the stack is full, and grows, just in the functions that gotracer's probes stand in. A function whose stack check
// fails is entered twice: a probe that counts entries counts those twice.
package main

import (
	"flag"
	"runtime"
	"runtime/debug"

	"gotracer.test/programs/report"
)

var depths = flag.Int("depths", 260, "the greatest depth; with frames of 32 bytes and more this is past 8 KiB")

var (
	waiters  = report.New(1 << 12)
	starters = report.New(1 << 12)
	children = report.New(1 << 12)
	stuck    = report.New(1 << 12)
)

// Each takes so many bytes a call that together their stacks end at every few bytes.
var allFrames = []func(depth int, bottom func(chan int) int, c chan int) int{small, medium, large}

func main() {
	flag.Parse()
	// Without the collector no stack shrinks, and each is new: a stack grows where the depth says, and only there.
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	var waiting []chan int
	for _, frames := range allFrames {
		for depth := 0; depth < *depths; depth++ {
			frames, depth, c := frames, depth, make(chan int)
			waiting = append(waiting, c)
			waiters.Next()
			go func() {
				waiters.Enter()
				frames(depth, wait, c)
				waiters.Leave()
			}()
			// The first tells where the children are started; it alone, for telling needs stack.
			tell := c
			if len(waiting) == 1 {
				tell = nil
			}
			starters.Next()
			go func() {
				starters.Enter()
				frames(depth, start, tell)
				starters.Leave()
			}()
		}
	}
	for round := 0; round < 2; round++ {
		waiters.AwaitParked(len(waiting), "main.wait")
		for _, c := range waiting {
			c <- round
		}
	}
	report.AwaitNumGoroutine(before)

	for _, frames := range allFrames {
		for depth := 0; depth < *depths; depth++ {
			frames, depth := frames, depth
			bottom := receiveNil
			if depth%2 == 0 {
				bottom = selectForever
			}
			stuck.Next()
			go func() {
				stuck.Enter()
				frames(depth, bottom, nil)
			}()
		}
	}
	stuck.AwaitParked(len(waiting), "main.receiveNil", "main.selectForever")
	report.Tally(waiters, starters, children, stuck)
	report.Await("quit")
}

// Receiving from a channel first calls what has the same need of stack as gopark, which so never grows it. These two
// come to gopark at once, and stay there.

//go:noinline
func receiveNil(c chan int) int {
	return <-c
}

//go:noinline
func selectForever(chan int) int {
	select {}
}

// wait parks twice: where the stack may have to grow for it, and where it has grown.
//
//go:noinline
func wait(c chan int) int {
	return <-c + <-c
}

//go:noinline
func start(c chan int) int {
	if c == nil {
		children.Ahead(2)
	}
	go child()
	return 1
}

//go:noinline
func child() {
	children.Enter()
	children.Leave()
}

//go:noinline
func small(depth int, bottom func(chan int) int, c chan int) int {
	if depth == 0 {
		return bottom(c)
	}
	return small(depth-1, bottom, c) + 1
}

//go:noinline
func medium(depth int, bottom func(chan int) int, c chan int) int {
	var pad [2]int
	fill(pad[:])
	if depth == 0 {
		return bottom(c)
	}
	return medium(depth-1, bottom, c) + pad[depth&1]
}

//go:noinline
func large(depth int, bottom func(chan int) int, c chan int) int {
	var pad [5]int
	fill(pad[:])
	if depth == 0 {
		return bottom(c)
	}
	return large(depth-1, bottom, c) + pad[depth&3]
}

//go:noinline
func fill(pad []int) {
	for i := range pad {
		pad[i] = i
	}
}
