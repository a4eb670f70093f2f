// Command idle has goroutines that wait, each in one of several ways, from before it can be attached to, and tells its
// own profile of them on a loopback port.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"sync"
	"time"

	"gotracer.test/programs/report"
)

var n = flag.Int("n", 100, "goroutines in each way of waiting")

func main() {
	flag.Parse()
	var locked sync.Mutex
	locked.Lock()
	never, cond, group := make(chan int), sync.NewCond(new(sync.Mutex)), new(sync.WaitGroup)
	group.Add(1)
	sites := []*report.Site{
		startIdle("main.idleReceive", func() { idleReceive(never) }),
		startIdle("main.idleSend", func() { idleSend(make(chan int)) }),
		startIdle("main.idleSelect", func() { idleSelect(never, make(chan int)) }),
		startIdle("main.idleLock", func() { idleLock(&locked) }),
		startIdle("main.idleGroup", func() { idleGroup(group) }),
		startIdle("main.idleCond", func() { idleCond(cond) }),
		startIdle("main.idleSleep", idleSleep),
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		report.Fail("%v", err)
	}
	go http.Serve(listener, nil)
	report.Ready(fmt.Sprintf(`{"port":%d}`, listener.Addr().(*net.TCPAddr).Port))
	report.Await("go")
	report.Tally(sites...)
	report.Await("quit")
}

// All are of one `go` statement: their wait tells them apart.
func startIdle(function string, wait func()) *report.Site {
	site := report.New(*n)
	for i := 0; i < *n; i++ {
		site.Next()
		go enterAndWait(site, wait)
	}
	site.AwaitParked(*n, function)
	return site
}

func enterAndWait(site *report.Site, wait func()) {
	site.Enter()
	wait()
}

//go:noinline
func idleReceive(c chan int) { <-c }

//go:noinline
func idleSend(c chan int) { c <- 0 }

//go:noinline
func idleSelect(a, b chan int) {
	select {
	case <-a:
	case b <- 0:
	}
}

//go:noinline
func idleLock(m *sync.Mutex) { m.Lock() }

//go:noinline
func idleGroup(g *sync.WaitGroup) { g.Wait() }

//go:noinline
func idleCond(c *sync.Cond) {
	c.L.Lock()
	c.Wait()
}

//go:noinline
func idleSleep() { time.Sleep(24 * time.Hour) }
