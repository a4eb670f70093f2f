package main

import (
	"runtime"
	"sync"
	"time"
)

// padded is large enough to begin with a pointer to its type (Go 1.22), and holds its channel at its end.
type padded struct {
	text [100]string
	c    chan int
}

type holder struct {
	name string
	c    chan int
}

type guarded struct {
	owner *holder
	mutex sync.Mutex
	lock  sync.RWMutex
	group sync.WaitGroup
}

func leaks() []maker {
	leaked := book(rolled.Leaked)
	return []maker{
		{"send", func() {
			c := make(chan int)
			go func() { leaked.here("send"); c <- 1 }()
		}},
		{"send, buffer full", func() {
			c := make(chan int, 1)
			c <- 1
			go func() { leaked.here("send, buffer full"); c <- 2 }()
		}},
		{"receive", func() {
			c := make(chan int)
			go func() { leaked.here("receive"); <-c }()
		}},
		{"receive pointers", func() {
			c := make(chan *holder, 3)
			go func() { leaked.here("receive pointers"); <-c }()
		}},
		{"range", func() {
			c := make(chan string)
			go func() {
				leaked.here("range")
				for range c {
				}
			}()
		}},
		{"select", func() {
			a, b := make(chan int), make(chan *holder)
			go func() {
				leaked.here("select")
				select {
				case <-a:
				case b <- nil:
				}
			}()
		}},
		{"select of nil", func() {
			var a, b chan int
			go func() {
				leaked.here("select of nil")
				select {
				case <-a:
				case b <- 1:
				}
			}()
		}},
		{"select without cases", func() {
			go func() { leaked.here("select without cases"); select {} }()
		}},
		{"nil receive", func() {
			var c chan int
			go func() { leaked.here("nil receive"); <-c }()
		}},
		{"nil send", func() {
			var c chan *holder
			go func() { leaked.here("nil send"); c <- nil }()
		}},
		{"mutex", func() {
			m := new(guarded)
			m.mutex.Lock()
			go func() { leaked.here("mutex"); m.mutex.Lock() }()
		}},
		{"tiny mutex", func() {
			// So small that two share a slot: it lies between two that nobody has.
			var three [3]*sync.Mutex
			for i := range three {
				three[i] = new(sync.Mutex)
			}
			m := three[1]
			m.Lock()
			go func() { leaked.here("tiny mutex"); m.Lock() }()
		}},
		{"read lock", func() {
			m := &guarded{owner: new(holder)}
			m.lock.Lock()
			go func() { leaked.here("read lock"); m.lock.RLock() }()
		}},
		{"write lock", func() {
			m := &guarded{owner: new(holder)}
			m.lock.RLock()
			go func() { leaked.here("write lock"); m.lock.Lock() }()
		}},
		{"group", func() {
			m := new(guarded)
			m.group.Add(1)
			go func() { leaked.here("group"); m.group.Wait() }()
		}},
		{"condition", func() {
			c := sync.NewCond(new(sync.Mutex))
			go func() { leaked.here("condition"); c.L.Lock(); c.Wait() }()
		}},
		{"two on one condition", func() {
			c := sync.NewCond(new(sync.Mutex))
			for i := 0; i < 2; i++ {
				go func() { leaked.here("two on one condition"); c.L.Lock(); c.Wait() }()
			}
		}},
		// The first holds what the second waits on, and the second what the third waits on.
		{"chain", func() {
			a, b, c := make(chan int), make(chan *holder), make(chan int)
			go func() { leaked.here("chain"); <-a; b <- nil }()
			go func() { leaked.here("chain"); <-b; c <- 1 }()
			go func() { leaked.here("chain"); <-c }()
		}},
		{"ring", func() {
			a, b := make(chan int), make(chan int)
			go func() { leaked.here("ring"); <-a; b <- 1 }()
			go func() { leaked.here("ring"); <-b; a <- 1 }()
		}},
		{"mixed chain", func() {
			m, c := new(guarded), make(chan *holder)
			m.mutex.Lock()
			go func() { leaked.here("mixed chain"); <-c; m.mutex.Unlock() }()
			go func() { leaked.here("mixed chain"); m.mutex.Lock(); close(c) }()
		}},
		// It holds the other end of what a live one waits on.
		{"holds a live one", func() {
			c := make(chan int)
			go func() { leaked.here("holds a live one"); <-c; anyone <- 1 }()
		}},
		// Its channel has a span of its own, which may begin where the stack of a thread ends: the stack's end is no reference.
		{"behind a thread's stack", func() {
			for i := 0; i < 4; i++ {
				asleep := make(chan bool)
				go func() {
					runtime.LockOSThread()
					close(asleep)
					time.Sleep(24 * time.Hour)
				}()
				<-asleep
				c := make(chan [8]byte, 1000)
				go func() { leaked.here("behind a thread's stack"); <-c }()
			}
		}},
		// What it waits on lies in memory that it alone holds.
		{"deep", func() {
			p := &padded{c: make(chan int)}
			go func() { leaked.here("deep"); <-p.c }()
		}},
		{"deferred", func() {
			c, d := make(chan int), make(chan int)
			go func() {
				defer func() { d <- 1 }()
				leaked.here("deferred")
				<-c
			}()
			go func() { leaked.here("deferred"); <-d }()
		}},
	}
}
