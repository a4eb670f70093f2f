// Command lockthread has goroutines that are wired to their threads: they wait and run again by a way of their own in
// the scheduler, and a thread dies with the goroutine that ends while it holds it.
package main

import (
	"flag"
	"runtime"
	"runtime/debug"

	"gotracer.test/programs/report"
)

var (
	workers = flag.Int("workers", 20, "goroutines of each kind")
	rounds  = flag.Int("rounds", 5, "parks of each goroutine")
)

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	locked, unlocked := report.New(*workers), report.New(*workers)
	var channels []chan int
	for i := 0; i < *workers; i++ {
		c, d := make(chan int), make(chan int)
		channels = append(channels, c, d)
		locked.Next()
		go endLocked(locked, c)
		unlocked.Next()
		go endUnlocked(unlocked, d)
	}
	for round := 0; round < *rounds; round++ {
		locked.AwaitParked(*workers, "main.endLocked")
		unlocked.AwaitParked(*workers, "main.endUnlocked")
		for _, c := range channels {
			c <- round
		}
	}
	report.AwaitNumGoroutine(before)
	report.Tally(locked, unlocked)
	report.Await("quit")
}

//go:noinline
func endLocked(site *report.Site, c chan int) {
	runtime.LockOSThread()
	site.Enter()
	for i := 0; i < *rounds; i++ {
		<-c
	}
	site.Leave()
}

//go:noinline
func endUnlocked(site *report.Site, c chan int) {
	runtime.LockOSThread()
	site.Enter()
	for i := 0; i < *rounds; i++ {
		<-c
	}
	runtime.UnlockOSThread()
	site.Leave()
}
