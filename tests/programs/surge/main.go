// Command surge is a load that rises: first a value is handed to and fro twenty times a second, then as often as it
// goes, while goroutines come and go at the same slow pace throughout.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"gotracer.test/programs/report"
)

const (
	quiet = 50 * time.Millisecond
	// Goroutines that stay, blocked on a channel for ever.
	staying = 50
)

var seconds = flag.Float64("seconds", 5, "how long the surge lasts")

var (
	surging, stop int32
	forever       = make(chan bool)
)

func main() {
	flag.Parse()
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	stayers, pingers, pongers, passing := report.New(staying), report.New(1), report.New(1), report.New(1<<16)
	waiter := report.New(1)
	for i := 0; i < staying; i++ {
		stayers.Next()
		go stay(stayers)
	}
	there, back := make(chan bool), make(chan bool)
	pongers.Next()
	go pong(pongers, there, back)
	pingers.Next()
	go ping(pingers, there, back)
	passed := make(chan bool)
	// Main waits for each: it parks, and is not counted.
	pass := func() {
		passing.Next()
		go passBy(passing, passed)
		<-passed
		time.Sleep(quiet)
	}
	// The test sends a line when it has seen enough of the quiet.
	waiter.Next()
	go awaitSurge(waiter)
	for atomic.LoadInt32(&surging) == 0 {
		pass()
	}
	fmt.Println("SURGE")
	for end := time.Now().Add(time.Duration(*seconds * float64(time.Second))); time.Now().Before(end); {
		pass()
	}
	atomic.StoreInt32(&stop, 1)
	report.AwaitNumGoroutine(before + staying)
	for _, site := range []*report.Site{stayers, pingers, pongers, passing, waiter} {
		site.Blocked = -1
	}
	report.Tally(stayers, pingers, pongers, passing, waiter)
	report.Await("quit")
}

//go:noinline
func awaitSurge(site *report.Site) {
	site.Enter()
	report.Await("surge")
	atomic.StoreInt32(&surging, 1)
	site.Leave()
}

//go:noinline
func stay(site *report.Site) {
	site.Enter()
	<-forever
	site.Leave()
}

//go:noinline
func ping(site *report.Site, there, back chan bool) {
	site.Enter()
	for atomic.LoadInt32(&stop) == 0 {
		there <- true
		<-back
		if atomic.LoadInt32(&surging) == 0 {
			time.Sleep(quiet)
		}
	}
	close(there)
	site.Leave()
}

//go:noinline
func pong(site *report.Site, there, back chan bool) {
	site.Enter()
	for v := range there {
		back <- v
	}
	site.Leave()
}

//go:noinline
func passBy(site *report.Site, passed chan bool) {
	site.Enter()
	passed <- true
	site.Leave()
}
