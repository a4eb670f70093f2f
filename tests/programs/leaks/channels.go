package main

import (
	"time"

	"gotracer.test/programs/report"
)

// send: the request gives up waiting, and nobody receives the result any more. A buffer of one mends it.
func send(site *report.Site, leak bool) {
	size := 1
	if leak {
		size = 0
	}
	result := make(chan int, size)
	site.Next()
	go query(result)
	select {
	case <-result:
	case <-time.After(2 * time.Millisecond):
	}
}

func query(result chan<- int) {
	time.Sleep(5 * time.Millisecond)
	result <- 1
}

// receive: the worker ranges over a channel that is never closed.
func receive(site *report.Site, leak bool) {
	jobs := make(chan int)
	site.Next()
	go work(jobs)
	for i := 0; i < 3; i++ {
		jobs <- i
	}
	if !leak {
		close(jobs)
	}
}

func work(jobs <-chan int) {
	for range jobs {
	}
}

// select: neither of the two events that it waits for comes.
func selects(site *report.Site, leak bool) {
	ready, failed := make(chan int), make(chan error)
	site.Next()
	go either(ready, failed)
	if !leak {
		close(ready)
	}
}

func either(ready <-chan int, failed <-chan error) {
	select {
	case <-ready:
	case <-failed:
	}
}

// nilChannel: the channel was declared and never made.
func nilChannel(site *report.Site, leak bool) {
	var ready chan int
	if !leak {
		ready = make(chan int)
		defer close(ready)
	}
	site.Next()
	go await(ready)
}

func await(ready <-chan int) { <-ready }

// deferred: what cleans up at the function's end starts a goroutine that waits for what the function captured.
func deferred(site *report.Site, leak bool) {
	flushed := make(chan int)
	defer func() {
		site.Next()
		go func() {
			<-flushed
		}()
		if !leak {
			close(flushed)
		}
	}()
	time.Sleep(time.Millisecond)
}

// accumulated: goroutines that were left behind before anybody looked, and get no more.
func accumulated(site *report.Site, leak bool) {
	const many = 2000
	for i := 0; i < many; i++ {
		result := make(chan int, 1)
		if leak {
			result = make(chan int)
		}
		site.Next()
		go query(result)
	}
	time.Sleep(50 * time.Millisecond)
}
