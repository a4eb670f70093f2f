// Command storm starts a great many goroutines that end at once: half of them in bursts from main, half in chains in
// which each starts the next, on every processor. How many are alive at a time is bounded.
package main

import (
	"flag"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"gotracer.test/programs/report"
)

const (
	burst  = 512
	chains = 16
)

var (
	total = flag.Int64("n", 1_000_000, "goroutines to start, rounded down to whole bursts and chains")

	ended   int64
	inBurst = report.New(0)
	// The first of each chain is started by main, each other by the one before.
	first, following = report.New(0), report.New(0)
)

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	inBurst.Created = *total / 2 / burst * burst
	inBurst.Exited = inBurst.Created
	for started := int64(0); started < inBurst.Created; started += burst {
		for i := 0; i < burst; i++ {
			if i == 0 {
				inBurst.Ahead(2)
			}
			go end()
		}
		awaitEnded(started + burst)
	}

	atomic.StoreInt64(&ended, 0)
	length := *total / 2 / chains
	for chain := 0; chain < chains; chain++ {
		first.Next()
		go link(chain == 0, length-1)
	}
	awaitEnded(length * chains)
	first.Created, first.Exited = chains, chains
	following.Created, following.Exited = (length-1)*chains, (length-1)*chains

	report.AwaitNumGoroutine(before)
	report.Tally(inBurst, first, following)
	report.Await("quit")
}

func end() { atomic.AddInt64(&ended, 1) }

func link(tellSite bool, left int64) {
	if left > 0 {
		if tellSite {
			following.Ahead(2)
		}
		go link(false, left-1)
	}
	end()
}

func awaitEnded(n int64) {
	for atomic.LoadInt64(&ended) < n {
		runtime.Gosched()
	}
}
