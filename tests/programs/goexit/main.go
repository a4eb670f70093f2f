// Command goexit ends goroutines in every way there is: by return, by runtime.Goexit with and without deferred
// functions, by panics that are recovered; and as asked, main by Goexit, or the program by a panic that nobody recovers.
package main

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"

	"gotracer.test/programs/report"
)

var (
	n    = flag.Int("n", 50, "goroutines at each site")
	mode = flag.String("mode", "", `how the program ends: "panic", "main", or by return`)
)

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	var sites []*report.Site
	for _, end := range []func(*report.Site){
		byReturn, byGoexit, byGoexitBelow, byGoexitWithDefers, byGoexitInDefer,
		byPanicRecovered, byPanicTwice, byGoexitAfterPanic,
	} {
		site := report.New(*n)
		sites = append(sites, site)
		for i := 0; i < *n; i++ {
			start(site, end)
		}
	}
	report.AwaitNumGoroutine(before)
	// Leave is not reached by most of them; that no more goroutines are left is the proof that all ended.
	for _, site := range sites {
		site.Exited = site.Created
	}

	switch *mode {
	case "main":
		last := report.New(1)
		last.Next()
		go withoutMain(last, append(sites, last))
		runtime.Goexit()
	case "panic":
		report.Tally(sites...)
		report.Await("quit")
		go panic("this panic is not recovered")
		select {}
	default:
		report.Tally(sites...)
		report.Await("quit")
	}
}

// One `go` statement for all: what differs is what runs.
//
//go:noinline
func start(site *report.Site, end func(*report.Site)) {
	site.Next()
	go end(site)
}

func withoutMain(last *report.Site, sites []*report.Site) {
	last.Enter()
	report.AwaitNumGoroutine(1)
	report.TallyWith(`"main_exited":true,`, sites...)
	report.Await("quit")
	// Without main, nothing but this ends the program.
	os.Exit(0)
}
