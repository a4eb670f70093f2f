// Command tally starts goroutines from every shape of `go` statement, has each of them park an exactly known number of
// times in one way, and prints what it did. Every count of gotracer is checked against it.
package main

import (
	"flag"
	"runtime"
	"runtime/debug"

	"gotracer.test/programs/report"
)

var (
	workers = flag.Int("workers", 8, "goroutines at each site")
	rounds  = flag.Int("rounds", 5, "parks of each goroutine")
)

func main() {
	flag.Parse()
	// The collector starts goroutines of its own, and lets others wait for it.
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	sites := []*report.Site{
		plainFunction(),
		closure(),
		methodValue(),
		interfaceMethod(),
		deferred(),
		genericFunction(),
		mutex(),
		rwMutex(),
		waitGroup(),
		cond(),
		sleep(),
		neverParks(),
	}
	sites = append(sites, grandchildren()...)
	report.AwaitNumGoroutine(before)

	// These stay, and are live when the tracer ends.
	forever := []*report.Site{emptySelect(), nilChannel()}
	report.AwaitNumGoroutine(before + len(forever)*(*workers))

	report.Tally(append(sites, forever...)...)
	report.Await("quit")
}

// release wakes each of the site's goroutines once a round, and only those that are seen to be parked.
func release(site *report.Site, function string, wake func(worker, round int)) {
	for round := 0; round < *rounds; round++ {
		site.AwaitParked(*workers, function)
		for worker := 0; worker < *workers; worker++ {
			wake(worker, round)
		}
	}
}
