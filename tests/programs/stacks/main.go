// Command stacks has goroutines that stand still in every way that makes a stack hard to read: inlined calls, wrappers,
// panics with deferred calls under way, faults, deep recursion, locked threads, labels. It tells its own profile of them on
// a loopback port.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"reflect"
	"runtime"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"time"

	"gotracer.test/programs/report"
)

var crowd = flag.Int("crowd", 0, "goroutines that all wait in one place, beside the others")

var never = make(chan int)

func main() {
	flag.Parse()
	parked := []func(){
		inlined, wrapped, methodValue, generic, panicking, faulting, goexiting, recovered, nilChannel, emptySelect,
		rangeChannel, rwLock, once, timer, reflected, labelled, locked, sorted, variadic,
		func() { recurse(30) }, func() { recurse(99) }, func() { recurse(5000) },
		func() { large(3) },
	}
	for _, f := range parked {
		go f()
	}
	go withArguments(1, "two", []int{3})
	go method{}.wait()
	var w waiter = &outer{}
	go w.Wait()
	reader, _, err := os.Pipe()
	if err != nil {
		report.Fail("%v", err)
	}
	go io.ReadAll(reader)
	blockedFinalizer()
	arguments()
	bubbles()
	more()
	gather(*crowd)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		report.Fail("%v", err)
	}
	go http.Serve(listener, nil)
	report.AwaitAllWait()
	report.Ready(fmt.Sprintf(`{"port":%d}`, listener.Addr().(*net.TCPAddr).Port))
	report.Await("quit")
}

func a() { b() }
func b() { c() }
func c() { <-never }

func inlined() {
	a()
	runtime.KeepAlive(never)
}

type waiter interface{ Wait() }

type inner struct{}

//go:noinline
func (inner) Wait() { <-never }

type outer struct{ inner }

//go:noinline
func call(w waiter) { w.Wait() }

func wrapped() { call(&outer{}) }

func methodValue() {
	f := outer{}.Wait
	f()
}

type method struct{}

func (method) wait() { <-never }

//go:noinline
func wait[T any](T) { <-never }

type box[T any] struct{ value T }

//go:noinline
func (b *box[T]) wait() { func() { wait(b.value) }() }

func generic() { (&box[map[string]int]{}).wait() }

func panicking() {
	defer func() { <-never }()
	panics("away")
}

//go:noinline
func panics(why string) { panic(why) }

func faulting() {
	defer func() { c() }()
	var p *method2
	p.read()
}

type method2 struct{ n [3]int }

//go:noinline
func (m *method2) read() { m.n[2]++ }

func goexiting() {
	defer c()
	runtime.Goexit()
}

func recovered() {
	defer func() {
		recover()
		defer func() { <-never }()
		panic("again")
	}()
	panic("once")
}

func nilChannel() {
	var c chan int
	c <- 1
}

func emptySelect() { select {} }

func rangeChannel() {
	for range never {
	}
}

func rwLock() {
	var m sync.RWMutex
	m.RLock()
	m.Lock()
}

func once() {
	new(sync.Once).Do(func() { <-never })
}

func timer() { <-time.After(24 * time.Hour) }

func reflected() {
	reflect.ValueOf(func(n int, s string) { <-never }).Call([]reflect.Value{reflect.ValueOf(1), reflect.ValueOf("x")})
}

func labelled() {
	pprof.Do(context.Background(), pprof.Labels("kind", "slow", "user", "42"), func(context.Context) { <-never })
}

func locked() {
	runtime.LockOSThread()
	<-never
}

func sorted() {
	sort.Slice([]int{2, 1}, func(i, j int) bool { <-never; return false })
}

func variadic() { fmt.Sprintf("%v", stringer{}) }

type stringer struct{}

func (stringer) String() string { <-never; return "" }

//go:noinline
func recurse(n int) {
	if n == 0 {
		<-never
	}
	recurse(n - 1)
}

//go:noinline
func large(n int) byte {
	var space [100_000]byte
	if n == 0 {
		<-never
	}
	space[n] = large(n-1) + 1
	return space[n/2]
}

//go:noinline
func withArguments(n int, s string, l []int) { <-never }

// The runtime's finalizer goroutine is the program's as long as it runs this.
func blockedFinalizer() {
	runtime.SetFinalizer(new([64]int), func(*[64]int) { <-never })
	runtime.GC()
}

// Back when all of them wait: then, and only then, all their stacks are one in the profile.
func gather(n int) {
	for i := 0; i < n; i++ {
		go func() { c() }()
	}
	for seen := n == 0; !seen; time.Sleep(10 * time.Millisecond) {
		var profile strings.Builder
		pprof.Lookup("goroutine").WriteTo(&profile, 1)
		seen = strings.Contains(profile.String(), fmt.Sprintf("\n%d @ ", n))
	}
}
