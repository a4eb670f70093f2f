// Command bench is the load that `cargo xtask bench` measures with and without probes. It does what each line of its
// stdin says, and prints what that took:
//
//	park N               N round trips over two unbuffered channels: 2 parks each
//	spawn N              N goroutines that end at once, at most 128 alive at a time
//	switch N             N times that a goroutine yields to another
//	load SECONDS PAIRS   pairs in round trips on every processor, for so long
//
// park, spawn and switch have one processor, so that every channel operation that must park does, and the reader of events
// is not in the way.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gotracer.test/programs/report"
)

func main() {
	// A collection parks goroutines of its own in the middle of a measurement; run does it before.
	debug.SetGCPercent(-1)
	report.Ready("")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var n, pairs int64
		var seconds float64
		switch line := lines.Text(); {
		case scan(line, "park %d", &n):
			run(1, func() int64 { return park(n) })
		case scan(line, "spawn %d", &n):
			run(1, func() int64 { return spawn(n) })
		case scan(line, "switch %d", &n):
			run(1, func() int64 { return yield(n) })
		case scan(line, "load %g %d", &seconds, &pairs):
			run(runtime.NumCPU(), func() int64 { return load(seconds, int(pairs)) })
		default:
			report.Fail("%q is none of its commands", line)
		}
	}
}

func scan(line, format string, values ...interface{}) bool {
	n, err := fmt.Sscanf(line, format, values...)
	return err == nil && n == len(values)
}

// run prints what the work gives as count, and what it took: by the clock, and of the processors' time.
func run(processors int, work func() int64) {
	runtime.GOMAXPROCS(processors)
	runtime.GC()
	cpu, start := cpuTime(), time.Now()
	count := work()
	took, cpuTook := time.Since(start), cpuTime()-cpu
	fmt.Printf("RESULT {\"count\":%d,\"ns\":%d,\"cpu_ns\":%d}\n", count, took.Nanoseconds(), cpuTook)
}

func cpuTime() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		report.Fail("getrusage: %v", err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

// park gives the number of parks.
func park(n int64) int64 {
	there, back := make(chan struct{}), make(chan struct{})
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		for i := int64(0); i < n; i++ {
			there <- struct{}{}
			<-back
		}
		both.Done()
	}()
	go func() {
		for i := int64(0); i < n; i++ {
			<-there
			back <- struct{}{}
		}
		both.Done()
	}()
	both.Wait()
	return 2 * n
}

var burst sync.WaitGroup

// spawn gives the number of goroutines. Its go statement has neither arguments nor a closure: nothing is allocated but
// what the runtime takes for a goroutine.
func spawn(n int64) int64 {
	const alive = 128
	for left := n; left > 0; left -= alive {
		now := left
		if now > alive {
			now = alive
		}
		burst.Add(int(now))
		for i := int64(0); i < now; i++ {
			go end()
		}
		burst.Wait()
	}
	return n
}

func end() { burst.Done() }

// yield gives the number of times that a goroutine has yielded.
func yield(n int64) int64 {
	var both sync.WaitGroup
	both.Add(2)
	for i := 0; i < 2; i++ {
		go func() {
			for i := int64(0); i < n/2; i++ {
				runtime.Gosched()
			}
			both.Done()
		}()
	}
	both.Wait()
	return n / 2 * 2
}

// load gives the number of round trips.
func load(seconds float64, pairs int) int64 {
	var stop int32
	var trips int64
	var all sync.WaitGroup
	all.Add(2 * pairs)
	for i := 0; i < pairs; i++ {
		there, back := make(chan struct{}), make(chan struct{})
		go func() {
			own := int64(0)
			for atomic.LoadInt32(&stop) == 0 {
				there <- struct{}{}
				<-back
				own++
			}
			close(there)
			atomic.AddInt64(&trips, own)
			all.Done()
		}()
		go func() {
			for range there {
				back <- struct{}{}
			}
			all.Done()
		}()
	}
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	atomic.StoreInt32(&stop, 1)
	all.Wait()
	return trips
}
