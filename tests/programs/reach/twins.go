package main

import (
	"context"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

var (
	anyone     = make(chan int)
	channels   []chan int
	byName     = map[int]*holder{}
	byChannel  = map[chan int]bool{}
	closures   []func()
	anything   []any
	large      = make([]*holder, 200000)
	largeUsed  int
	pads       []*padded
	ofChannels = make(chan chan int, 100)
	pool       = sync.Pool{}
	aMap       sync.Map
	pointers   []unsafe.Pointer
	inside     []*chan int
	values     []reflect.Value
	atoms      [100]atomic.Value
	atomsUsed  int
	guards     []*guarded
	conditions []*sync.Cond
	timers     []*time.Timer
	huge       *[40000]struct {
		c    chan int
		text string
	}
	hugeUsed    int
	global      guarded
	globalCond  = sync.NewCond(new(sync.Mutex))
	globalGroup sync.WaitGroup
	once        sync.Once
)

type key struct{}

// A call of its methods is a nil dereference.
var nothing *holder

type finisher interface{ finish() }

func (h *holder) finish() { close(h.c) }

// recovers calls f, and sleeps before it recovers from what that panics with.
//
//go:noinline
func recovers(f func()) {
	defer func() {
		time.Sleep(24 * time.Hour)
		recover()
	}()
	f()
}

// wait starts a goroutine that waits for the channel, and gives that.
func wait(kind string) chan int {
	c := make(chan int)
	go func() { book(rolled.Live).here(kind); <-c }()
	return c
}

func waitPointers(kind string) chan *holder {
	c := make(chan *holder)
	go func() {
		book(rolled.Live).here(kind)
		select {
		case <-c:
		case c <- nil:
		}
	}()
	return c
}

// sleep keeps a stack with what it is given on it.
func sleep(c chan int) {
	time.Sleep(24 * time.Hour)
	close(c)
}

//go:noinline
func sleepOnObject(c chan int) {
	h := holder{c: c}
	p := &h
	once.Do(func() {})
	sleepOn(p)
	close(p.c)
}

//go:noinline
func sleepOn(h *holder) {
	time.Sleep(24 * time.Hour)
	runtime.KeepAlive(h)
}

func recurse(depth int, c chan int) {
	if depth > 0 {
		recurse(depth-1, c)
		return
	}
	sleep(c)
}

func twins() []maker {
	live := book(rolled.Live)
	globalGroup.Add(1)
	makers := []maker{
		{"global", func() { channels = append(channels, wait("global")) }},
		{"map value", func() { byName[len(byName)] = &holder{c: wait("map value")} }},
		{"map key", func() { byChannel[wait("map key")] = true }},
		{"closure", func() {
			c := wait("closure")
			closures = append(closures, func() { close(c) })
		}},
		{"method value", func() {
			h := &holder{c: wait("method value")}
			closures = append(closures, h.finish)
		}},
		{"interface", func() { anything = append(anything, finisher(&holder{c: wait("interface")})) }},
		{"channel in an interface", func() { anything = append(anything, waitPointers("channel in an interface")) }},
		{"struct in an interface", func() { anything = append(anything, holder{c: wait("struct in an interface")}) }},
		{"large slice", func() {
			largeUsed += 50000
			large[largeUsed] = &holder{c: wait("large slice")}
		}},
		{"large object", func() { pads = append(pads, &padded{c: wait("large object")}) }},
		{"huge array", func() {
			if huge == nil {
				huge = new([40000]struct {
					c    chan int
					text string
				})
			}
			hugeUsed += 9999
			huge[hugeUsed].c = wait("huge array")
		}},
		{"in a channel", func() { ofChannels <- wait("in a channel") }},
		{"sync.Pool", func() { pool.Put(&holder{c: wait("sync.Pool")}) }},
		{"sync.Map", func() { aMap.Store(goid(), &holder{c: wait("sync.Map")}) }},
		{"atomic.Value", func() {
			atoms[atomsUsed].Store(&holder{c: wait("atomic.Value")})
			atomsUsed++
		}},
		{"unsafe.Pointer", func() { pointers = append(pointers, unsafe.Pointer(&holder{c: wait("unsafe.Pointer")})) }},
		{"interior pointer", func() { inside = append(inside, &(&padded{c: wait("interior pointer")}).c) }},
		{"reflect.Value", func() { values = append(values, reflect.ValueOf(&holder{c: wait("reflect.Value")})) }},
		{"stack", func() { go sleep(wait("stack")) }},
		{"deep stack", func() { go recurse(2000, wait("deep stack")) }},
		{"stack object", func() { go sleepOnObject(wait("stack object")) }},
		{"deferred call", func() {
			c := wait("deferred call")
			go func() {
				defer close(c)
				time.Sleep(24 * time.Hour)
			}()
		}},
		{"deferred in a loop", func() {
			go func() {
				for i := 0; i < 2; i++ {
					c := wait("deferred in a loop")
					defer func() { close(c) }()
				}
				time.Sleep(24 * time.Hour)
			}()
		}},
		{"panic", func() {
			c := wait("panic")
			go func() {
				defer func() {
					time.Sleep(24 * time.Hour)
					recover()
					close(c)
				}()
				panic("wait")
			}()
		}},
		// Only the frame below the panic has it.
		{"below a panic", func() {
			c := wait("below a panic")
			go func() {
				recovers(func() { panic("below") })
				close(c)
			}()
		}},
		{"panic of a signal", func() {
			c := wait("panic of a signal")
			go func() {
				recovers(func() { recovers(nil); close(c) })
			}()
		}},
		// The interrupted frame's own deferred call has it.
		{"deferred where a signal panics", func() {
			c := wait("deferred where a signal panics")
			go func() {
				defer close(c)
				defer time.Sleep(24 * time.Hour)
				nothing.finish()
			}()
		}},
		{"panic in a panic", func() {
			c, d := wait("panic in a panic"), wait("panic in a panic")
			go func() {
				defer close(c)
				defer func() {
					defer func() { recovers(func() { panic("third") }); recover(); close(d) }()
					panic("second")
				}()
				panic("first")
			}()
		}},
		{"runtime.Goexit", func() {
			c, d := wait("runtime.Goexit"), wait("runtime.Goexit")
			go func() {
				defer close(c)
				defer func() { time.Sleep(24 * time.Hour); close(d) }()
				runtime.Goexit()
			}()
		}},
		{"reflect.MakeFunc", func() {
			c := wait("reflect.MakeFunc")
			kind := reflect.TypeOf(func(chan int) {})
			f := reflect.MakeFunc(kind, func(args []reflect.Value) []reflect.Value {
				time.Sleep(24 * time.Hour)
				args[0].Close()
				return nil
			})
			go f.Interface().(func(chan int))(c)
		}},
		{"reflect.Call", func() {
			c := wait("reflect.Call")
			go reflect.ValueOf(sleep).Call([]reflect.Value{reflect.ValueOf(c)})
		}},
		{"context value", func() {
			ctx := context.WithValue(context.Background(), key{}, wait("context value"))
			go func() {
				time.Sleep(24 * time.Hour)
				close(ctx.Value(key{}).(chan int))
			}()
		}},
		{"labels", func() {
			ctx := context.WithValue(context.Background(), key{}, wait("labels"))
			go pprof.Do(ctx, pprof.Labels("kind", "live"), func(ctx context.Context) {
				time.Sleep(24 * time.Hour)
				close(ctx.Value(key{}).(chan int))
			})
		}},
		{"context with a deadline", func() {
			ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
			_ = cancel
			go func() { live.here("context with a deadline"); <-ctx.Done() }()
		}},
		{"AfterFunc", func() {
			c := wait("AfterFunc")
			time.AfterFunc(24*time.Hour, func() { close(c) })
		}},
		{"time.After", func() {
			go func() { live.here("time.After"); <-time.After(24 * time.Hour) }()
		}},
		{"timer in a select", func() {
			go func() {
				c := make(chan int)
				live.here("timer in a select")
				select {
				case <-c:
				case <-time.NewTimer(24 * time.Hour).C:
				}
			}()
		}},
		{"ticker", func() {
			go func() { live.here("ticker"); <-time.NewTicker(24 * time.Hour).C }()
		}},
		{"signal", func() {
			c := make(chan os.Signal, 1)
			signal.Notify(c, os.Interrupt)
			go func() { live.here("signal"); <-c }()
		}},
		{"finalizer", func() {
			h := &holder{name: "finalized", c: wait("finalizer")}
			runtime.SetFinalizer(h, (*holder).finish)
		}},
		{"finalizer's closure", func() {
			c := wait("finalizer's closure")
			runtime.SetFinalizer(&holder{name: "finalized"}, func(*holder) { close(c) })
		}},
		// A live one holds what the next waits on.
		{"chain", func() {
			a, b := make(chan int), make(chan *holder)
			go func() { live.here("chain"); <-a; b <- nil }()
			go func() { live.here("chain"); <-b }()
			channels = append(channels, a)
		}},
		{"one of a select's", func() {
			a, b := make(chan int), make(chan int)
			go func() {
				live.here("one of a select's")
				select {
				case <-a:
				case <-b:
				}
			}()
			channels = append(channels, b)
		}},
		{"mutex", func() {
			m := &guarded{owner: new(holder)}
			m.mutex.Lock()
			go func() { live.here("mutex"); m.mutex.Lock() }()
			guards = append(guards, m)
		}},
		{"global mutex", func() {
			global.mutex.TryLock()
			go func() { live.here("global mutex"); global.mutex.Lock() }()
		}},
		{"locks", func() {
			m := &guarded{owner: new(holder)}
			m.lock.Lock()
			go func() { live.here("locks"); m.lock.RLock() }()
			go func() { live.here("locks"); m.lock.Lock() }()
			guards = append(guards, m)
		}},
		{"group", func() {
			m := &guarded{owner: new(holder)}
			m.group.Add(1)
			go func() { live.here("group"); m.group.Wait() }()
			guards = append(guards, m)
		}},
		{"global group", func() {
			go func() { live.here("global group"); globalGroup.Wait() }()
		}},
		{"condition", func() {
			c := sync.NewCond(new(sync.Mutex))
			for i := 0; i < 3; i++ {
				go func() { live.here("condition"); c.L.Lock(); c.Wait() }()
			}
			conditions = append(conditions, c)
		}},
		{"global condition", func() {
			go func() { live.here("global condition"); globalCond.L.Lock(); globalCond.Wait() }()
		}},
		{"anyone's", func() {
			go func() { live.here("anyone's"); <-anyone }()
		}},
		{"locked to a thread", func() {
			c := wait("locked to a thread")
			go func() {
				runtime.LockOSThread()
				time.Sleep(24 * time.Hour)
				close(c)
			}()
		}},
		{"read from a pipe", func() {
			c := wait("read from a pipe")
			r, w, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			anything = append(anything, w)
			go func() {
				r.Read(make([]byte, 1))
				close(c)
			}()
		}},
	}
	return makers
}
