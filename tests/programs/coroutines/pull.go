//go:build go1.23

package main

import (
	"iter"
	"runtime"

	"gotracer.test/programs/report"
)

func work() {
	before := runtime.NumGoroutine()
	// The runtime makes the goroutine of a coroutine inside iter.Pull: that is its creation site.
	pull := report.New(0)
	pull.Function, pull.Blocked = "iter.Pull[...]", -1
	for i := 0; i < *n; i++ {
		exhausted()
		stopped()
		neverStarted()
	}
	pull.Created = int64(3 * *n)
	pull.Exited = pull.Created

	// Coroutines that are resumed by another goroutine than the one that made them.
	handed := report.New(*n)
	for i := 0; i < *n; i++ {
		next, stop := iter.Pull(count)
		next()
		handed.Next()
		go drain(handed, next, stop)
	}
	report.AwaitNumGoroutine(before)
	pull.Created += int64(*n)
	pull.Exited += int64(*n)
	report.Tally(pull, handed)
}

func count(yield func(int) bool) {
	for i := 0; i < *values; i++ {
		if !yield(i) {
			return
		}
	}
}

func exhausted() {
	next, _ := iter.Pull(count)
	for {
		if _, ok := next(); !ok {
			return
		}
	}
}

func stopped() {
	next, stop := iter.Pull(count)
	next()
	stop()
}

func neverStarted() {
	_, stop := iter.Pull(count)
	stop()
}

//go:noinline
func drain(site *report.Site, next func() (int, bool), stop func()) {
	site.Enter()
	for {
		if _, ok := next(); !ok {
			break
		}
	}
	stop()
	site.Leave()
}
