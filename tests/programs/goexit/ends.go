package main

import (
	"runtime"

	"gotracer.test/programs/report"
)

func byReturn(site *report.Site) { site.Enter() }

func byGoexit(site *report.Site) {
	site.Enter()
	runtime.Goexit()
}

func byGoexitBelow(site *report.Site) {
	site.Enter()
	goexitBelow(100)
}

//go:noinline
func goexitBelow(depth int) int {
	if depth == 0 {
		runtime.Goexit()
	}
	return goexitBelow(depth-1) + 1
}

func byGoexitWithDefers(site *report.Site) {
	defer site.Leave()
	defer func() { _ = recover() }() // There is nothing to recover, and it goes on ending.
	defer runtime.Gosched()
	site.Enter()
	runtime.Goexit()
}

func byPanicRecovered(site *report.Site) {
	defer func() { _ = recover() }()
	site.Enter()
	panic("recovered")
}

func byPanicTwice(site *report.Site) {
	defer func() { _ = recover() }()
	defer func() { panic("a second one, from a deferred function") }()
	site.Enter()
	panic("recovered")
}

func byGoexitAfterPanic(site *report.Site) {
	defer func() {
		_ = recover()
		runtime.Goexit()
	}()
	site.Enter()
	panic("recovered")
}

func byGoexitInDefer(site *report.Site) {
	defer runtime.Goexit()
	defer runtime.Goexit()
	site.Enter()
}
