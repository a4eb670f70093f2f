// Command pingpong is a load of parks: pairs of goroutines that hand a value to and fro over two channels.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"gotracer.test/programs/report"
)

var (
	pairs   = flag.Int("pairs", 1, "pairs of goroutines")
	seconds = flag.Float64("seconds", 0, "how long it goes on; 0: until it is sent the line stop")
)

var stop int32

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	report.Ready("")
	report.Await("go")

	before := runtime.NumGoroutine()
	pingers, pongers := report.New(*pairs), report.New(*pairs)
	iterations := make([]int64, *pairs)
	started := time.Now()
	for i := range iterations {
		there, back := make(chan bool), make(chan bool)
		pongers.Next()
		go pong(pongers, there, back)
		pingers.Next()
		go ping(pingers, there, back, &iterations[i])
	}
	fmt.Println("RUNNING")
	if *seconds > 0 {
		time.Sleep(time.Duration(*seconds * float64(time.Second)))
	} else {
		// Blocks a thread in a system call, not a goroutine in the scheduler.
		report.Await("stop")
	}
	atomic.StoreInt32(&stop, 1)
	report.AwaitNumGoroutine(before)
	took := time.Since(started)

	sum := int64(0)
	for _, n := range iterations {
		sum += n
	}
	// Both park in most iterations, but a value that is already there is taken without a park.
	pingers.Blocked, pongers.Blocked = -1, -1
	perIteration := float64(took.Nanoseconds()) * float64(*pairs) / float64(sum)
	report.TallyWith(fmt.Sprintf(`"iterations":%d,"ns_per_iteration":%.1f,`, sum, perIteration), pongers, pingers)
	report.Await("quit")
}

//go:noinline
func ping(site *report.Site, there, back chan bool, iterations *int64) {
	site.Enter()
	n := int64(0)
	for atomic.LoadInt32(&stop) == 0 {
		there <- true
		<-back
		n++
	}
	*iterations = n
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
