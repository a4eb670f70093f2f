// Command heap has as large a heap of small objects with pointers as it is told, goroutines that wait beside it, and
// some of them leaked. It does what each line of its stdin says, and prints what that took:
//
//	allocate SECONDS     as many objects as it can in this time, on every processor: the heap's content is replaced bit by bit
//	still                no more collections after two whole ones; tells how many bytes of objects these have left
//	quit
package main

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"gotracer.test/programs/report"
)

var (
	mib      = flag.Int("mib", 0, "objects, in MiB")
	ordered  = flag.Bool("ordered", false, "pointers lead to neighbours; without it, anywhere")
	list     = flag.Bool("list", false, "the objects are one list instead of a tree")
	waiting  = flag.Int("waiting", 0, "goroutines that wait for what can be reached")
	leaked   = flag.Int("leaked", 0, "goroutines that wait for what cannot")
	settled  sync.WaitGroup
	channels []chan int
	root     *node
	tables   [][]*node
	stats    runtime.MemStats
	answer   = make([]byte, 0, 100)
)

// node is 64 bytes long, of which three words are pointers: the tree's, and one to any other node.
type node struct {
	left, right, other *node
	number             [5]uint64
}

const nodeSize = 64

func main() {
	flag.Parse()
	grow(*mib << 20 / nodeSize)
	runtime.GC()
	for i := 0; i < *waiting; i++ {
		c := make(chan int)
		channels = append(channels, c)
		begin(c)
	}
	for i := 0; i < *leaked; i++ {
		begin(make(chan int))
	}
	settled.Wait()
	report.Ready("")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var seconds float64
		line := lines.Text()
		if n, err := fmt.Sscanf(line, "allocate %g", &seconds); err == nil && n == 1 {
			begun := time.Now()
			count := allocate(time.Duration(seconds * float64(time.Second)))
			fmt.Printf("RESULT {\"count\":%d,\"ns\":%d,\"cpu_ns\":0}\n", count, time.Since(begun).Nanoseconds())
			continue
		}
		switch line {
		case "still":
			debug.SetGCPercent(-1)
			// What the first one ends, finalizers for one, is gone with the second.
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&stats)
			// Without an allocation.
			answer = append(answer[:0], "STILL "...)
			answer = strconv.AppendUint(answer, stats.HeapAlloc, 10)
			os.Stdout.Write(append(answer, '\n'))
		case "quit":
			return
		default:
			report.Fail("%q is none of its commands", line)
		}
	}
}

func begin(c chan int) {
	settled.Add(1)
	go wait(c)
}

//go:noinline
func wait(c chan int) {
	settled.Done()
	<-c
}

// grow makes a tree or a list of so many nodes, which lie in memory in the order in which they are made.
func grow(count int) {
	if count == 0 {
		return
	}
	made := make([]*node, count)
	for i := range made {
		made[i] = &node{number: [5]uint64{uint64(i)}}
	}
	random := rand.New(rand.NewSource(1))
	if !*ordered {
		random.Shuffle(count, func(i, j int) { made[i], made[j] = made[j], made[i] })
	}
	for i, n := range made {
		if *list {
			if i+1 < count {
				n.other = made[i+1]
			}
			continue
		}
		if 2*i+1 < count {
			n.left = made[2*i+1]
		}
		if 2*i+2 < count {
			n.right = made[2*i+2]
		}
		if *ordered {
			n.other = made[(i+1)%count]
		} else {
			n.other = made[random.Intn(count)]
		}
	}
	root = made[0]
}

// allocate gives the number of objects made.
func allocate(long time.Duration) int64 {
	var stop int32
	var all sync.WaitGroup
	var sum int64
	time.AfterFunc(long, func() { atomic.StoreInt32(&stop, 1) })
	tables = make([][]*node, runtime.GOMAXPROCS(0))
	for i := range tables {
		tables[i] = make([]*node, 1<<16)
		all.Add(1)
		go func(table []*node) {
			var own int64
			for atomic.LoadInt32(&stop) == 0 {
				for j := 0; j < 1000; j++ {
					at := int(own*40503) & (len(table) - 1)
					table[at] = &node{left: table[(at+1)&(len(table)-1)]}
					table[at].left = nil
					own++
				}
			}
			atomic.AddInt64(&sum, own)
			all.Done()
		}(tables[i])
	}
	all.Wait()
	tables = nil
	return sum
}
