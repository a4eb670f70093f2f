package main

import (
	"sync"
	"time"

	"gotracer.test/programs/report"
)

// Waits on package sync. Each worker has locks of its own, and each lock serves one round: with a single waiter there
// is nobody to take the lock away again between waking and running, so one wait is one park.

func mutex() *report.Site {
	site, locks := report.New(*workers), make([][]sync.Mutex, *workers)
	for worker := range locks {
		locks[worker] = make([]sync.Mutex, *rounds)
		for round := range locks[worker] {
			locks[worker][round].Lock()
		}
		site.Next()
		go lockEach(site, locks[worker])
	}
	release(site, "main.lockEach", func(worker, round int) { locks[worker][round].Unlock() })
	return site
}

//go:noinline
func lockEach(site *report.Site, locks []sync.Mutex) {
	site.Enter()
	for round := range locks {
		locks[round].Lock()
	}
	site.Leave()
}

func rwMutex() *report.Site {
	site, locks := report.New(*workers), make([][]sync.RWMutex, *workers)
	for worker := range locks {
		locks[worker] = make([]sync.RWMutex, *rounds)
		for round := range locks[worker] {
			locks[worker][round].Lock()
		}
		site.Next()
		go readEach(site, locks[worker])
	}
	release(site, "main.readEach", func(worker, round int) { locks[worker][round].Unlock() })
	return site
}

//go:noinline
func readEach(site *report.Site, locks []sync.RWMutex) {
	site.Enter()
	for round := range locks {
		locks[round].RLock()
	}
	site.Leave()
}

func waitGroup() *report.Site {
	site, groups := report.New(*workers), make([][]sync.WaitGroup, *workers)
	for worker := range groups {
		groups[worker] = make([]sync.WaitGroup, *rounds)
		for round := range groups[worker] {
			groups[worker][round].Add(1)
		}
		site.Next()
		go waitEach(site, groups[worker])
	}
	release(site, "main.waitEach", func(worker, round int) { groups[worker][round].Done() })
	return site
}

//go:noinline
func waitEach(site *report.Site, groups []sync.WaitGroup) {
	site.Enter()
	for round := range groups {
		groups[round].Wait()
	}
	site.Leave()
}

func cond() *report.Site {
	site, conds := report.New(*workers), make([]*sync.Cond, *workers)
	for worker := range conds {
		conds[worker] = sync.NewCond(new(sync.Mutex))
		site.Next()
		go waitForSignals(site, conds[worker])
	}
	// Without the lock, so that the worker finds it free.
	release(site, "main.waitForSignals", func(worker, _ int) { conds[worker].Signal() })
	return site
}

//go:noinline
func waitForSignals(site *report.Site, c *sync.Cond) {
	site.Enter()
	c.L.Lock()
	for i := 0; i < *rounds; i++ {
		c.Wait()
	}
	c.L.Unlock()
	site.Leave()
}

func sleep() *report.Site {
	site := report.New(*workers)
	for i := 0; i < *workers; i++ {
		site.Next()
		go sleepEach(site)
	}
	// Nobody has to be seen asleep here: each Sleep is one park.
	site.Blocked = int64(*workers * *rounds)
	site.Reasons["sleep"] = site.Blocked
	return site
}

//go:noinline
func sleepEach(site *report.Site) {
	site.Enter()
	for i := 0; i < *rounds; i++ {
		time.Sleep(time.Millisecond)
	}
	site.Leave()
}

func neverParks() *report.Site {
	site := report.New(*workers)
	for i := 0; i < *workers; i++ {
		site.Next()
		go enterAndLeave(site)
	}
	return site
}

//go:noinline
func enterAndLeave(site *report.Site) {
	site.Enter()
	site.Leave()
}
