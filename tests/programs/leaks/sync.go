package main

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"gotracer.test/programs/report"
)

// group: one of the workers returns early, past its Done, and who waits for them waits on.
func group(site *report.Site, leak bool) {
	var workers sync.WaitGroup
	workers.Add(3)
	for i := 0; i < 3; i++ {
		go worker(&workers, leak && i == 1)
	}
	site.Next()
	go awaitAll(&workers)
}

func worker(workers *sync.WaitGroup, early bool) {
	time.Sleep(time.Millisecond)
	if early {
		return
	}
	workers.Done()
}

func awaitAll(workers *sync.WaitGroup) {
	workers.Wait()
	time.Sleep(time.Millisecond)
}

// leftGroup: the Add is in the goroutine, so that Wait is through before it, and nobody waits for who comes later.
func leftGroup(site *report.Site, leak bool) {
	workers, input, waited := new(sync.WaitGroup), make(chan int), make(chan bool)
	if !leak {
		workers.Add(1)
		close(waited)
	}
	site.Next()
	go consume(workers, input, waited, leak)
	if !leak {
		close(input)
	}
	workers.Wait()
	if leak {
		// So late, each time, as it would be now and then.
		close(waited)
	}
}

func consume(workers *sync.WaitGroup, input <-chan int, waited <-chan bool, leak bool) {
	<-waited
	if leak {
		workers.Add(1)
	}
	defer workers.Done()
	for range input {
	}
}

var account sync.Mutex

// lostLock: a way out that does not unlock; everybody else waits.
func lostLock(site *report.Site, leak bool) {
	site.Next()
	go update(leak)
}

func update(leak bool) {
	account.Lock()
	time.Sleep(time.Millisecond)
	if leak {
		return
	}
	account.Unlock()
}

var held sync.RWMutex

// holdLock: one goroutine holds the lock, and waits for something else with it.
func holdLock(_ *report.Site, leak bool) {
	locked := make(chan bool, 1)
	go func() {
		for {
			held.Lock()
			select {
			case locked <- true:
			default:
			}
			if leak {
				time.Sleep(time.Hour)
			}
			time.Sleep(time.Millisecond)
			held.Unlock()
			time.Sleep(time.Millisecond)
		}
	}()
	<-locked
}

func heldLock(site *report.Site, _ bool) {
	site.Next()
	go readHeld()
}

func readHeld() {
	held.RLock()
	defer held.RUnlock()
	time.Sleep(time.Millisecond)
}

// condition: nobody signals.
func condition(site *report.Site, leak bool) {
	changed, is := sync.NewCond(new(sync.Mutex)), new(bool)
	site.Next()
	go awaitChange(changed, is)
	time.Sleep(2 * time.Millisecond)
	if !leak {
		changed.L.Lock()
		*is = true
		changed.Broadcast()
		changed.L.Unlock()
	}
}

func awaitChange(changed *sync.Cond, is *bool) {
	changed.L.Lock()
	defer changed.L.Unlock()
	for !*is {
		changed.Wait()
	}
}

// blockingRead: a read from a pipe that the runtime's poller does not know keeps its thread.
func blockingRead(site *report.Site, leak bool) {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		report.Fail("%v", err)
	}
	site.Next()
	go readPipe(ends[0])
	if !leak {
		time.Sleep(time.Millisecond)
		syscall.Write(ends[1], []byte{1})
		time.Sleep(time.Millisecond)
		syscall.Close(ends[1])
	}
}

func readPipe(end int) {
	syscall.Read(end, make([]byte, 1))
	syscall.Close(end)
}

// spins: it computes and computes; the twin rests now and then.
func spins(site *report.Site, leak bool) {
	site.Next()
	go compute(leak)
}

var sum int

func compute(leak bool) {
	for {
		begin := time.Now()
		for time.Since(begin) < 50*time.Millisecond {
			sum++
		}
		if !leak {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// storm: a hundred a second, each for a minute; the twin's are over at once.
func storm(site *report.Site, leak bool) {
	started := make(chan bool, 1)
	go func() {
		for {
			time.Sleep(10 * time.Millisecond)
			site.Next()
			go job(leak)
			select {
			case started <- true:
			default:
			}
		}
	}()
	<-started
}

func job(leak bool) {
	if leak {
		time.Sleep(time.Minute)
	}
	time.Sleep(time.Millisecond)
}

type resource struct{ file *os.File }

// finalizer: it waits for something; no finalizer runs any more.
func finalizer(_ *report.Site, leak bool) {
	go func() {
		for {
			use := &resource{}
			if leak {
				runtime.SetFinalizer(use, awaitForEver)
			} else {
				runtime.SetFinalizer(use, release)
			}
			use = nil
			time.Sleep(100 * time.Millisecond)
			runtime.GC()
		}
	}()
	time.Sleep(500 * time.Millisecond)
}

func awaitForEver(*resource) { <-shutdown }

func release(*resource) { time.Sleep(time.Millisecond) }
