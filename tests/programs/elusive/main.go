// Command elusive has one goroutine that waits on a channel which can be reached all the time, but by a reference that is
// never long in one place. Nothing in it is leaked.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"gotracer.test/programs/report"
)

var where = flag.String("where", "slots", "where the reference is: slots, tree, channels, stacks, register")

type box struct {
	pad  [6]uintptr
	c    chan int
	next *box
}

var (
	stop  uint32
	moves uint64
	root  *box
	boxes []*box
)

func main() {
	flag.Parse()
	begin := map[string]func(){
		"slots": func() { go slots(waiter()) }, "tree": func() { go tree(waiter()) },
		"channels": func() { channels(waiter()) }, "stacks": func() { go stacks(waiter()) },
		"register": func() { go register(waiter(), &stop) },
	}[*where]
	if begin == nil {
		report.Fail("no place %q", *where)
	}
	done := make(chan bool)
	go func() {
		begin()
		close(done)
	}()
	<-done
	time.Sleep(50 * time.Millisecond)
	report.Ready("")
	report.Await("quit")
	atomic.StoreUint32(&stop, 1)
	fmt.Println("MOVES", atomic.LoadUint64(&moves))
}

func waiter() chan int {
	c := make(chan int)
	go func() {
		<-c
		report.Fail("woken")
	}()
	for !waits() {
		runtime.Gosched()
	}
	return c
}

// waits says whether the waiter is parked, by the runtime's own traceback.
func waits() bool {
	buffer := make([]byte, 64<<10)
	for _, block := range strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(block, "main.waiter.func1") && strings.Contains(block, "[chan receive") {
			return true
		}
	}
	return false
}

// slots moves the reference between two far ends of a heap of many objects.
func slots(c chan int) {
	boxes = make([]*box, 1<<16)
	for i := range boxes {
		boxes[i] = new(box)
	}
	from, to := boxes[0], boxes[len(boxes)-1]
	from.c = c
	c = nil
	for atomic.LoadUint32(&stop) == 0 {
		to.c, from.c = from.c, nil
		from, to = to, from
		moves++
	}
}

// tree makes a new object for each move: the old one is garbage.
func tree(c chan int) {
	root = &box{next: &box{c: c}}
	c = nil
	for atomic.LoadUint32(&stop) == 0 {
		root = &box{next: &box{c: root.next.c}}
		moves++
	}
}

// channels hands it around a ring of goroutines.
func channels(c chan int) {
	first := make(chan chan int)
	in := first
	for i := 0; i < 10; i++ {
		out := make(chan chan int)
		if i == 9 {
			out = first
		}
		go func(in, out chan chan int) {
			for c := range in {
				moves++
				out <- c
			}
		}(in, out)
		in = out
	}
	first <- c
}

// stacks keeps it in the frames of calls that come and go.
func stacks(c chan int) {
	for atomic.LoadUint32(&stop) == 0 {
		c = deeper(c, 200)
		moves++
	}
}

//go:noinline
func deeper(c chan int, n int) chan int {
	if n == 0 {
		return c
	}
	d := deeper(c, n-1)
	c = nil
	return d
}

// register keeps it where no memory is: with GODEBUG=asyncpreemptoff=1 nobody puts it on the stack.
//
//go:noinline
func register(c chan int, stop *uint32) {
	for atomic.LoadUint32(stop) == 0 {
	}
	close(c)
}
