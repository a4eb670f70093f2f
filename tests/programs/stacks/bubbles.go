//go:build go1.25

package main

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Goroutines under testing/synctest, in each way of waiting: for something of the bubble, and for something outside it.
func bubbles() {
	test := func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			// Each way of waiting lasts: nobody sends to receivers, nobody receives from the sender.
			inside, full := make(chan int), make(chan int)
			for _, wait := range []func(){
				func() { <-inside },
				func() { full <- 1 },
				func() {
					select {
					case <-inside:
					case <-make(chan int):
					}
				},
				func() { time.Sleep(24 * time.Hour) },
				func() { select {} },
				func() { var c chan int; <-c },
				func() {
					var m sync.Mutex
					m.Lock()
					sync.NewCond(&m).Wait()
				},
				func() {
					var group sync.WaitGroup
					group.Add(1)
					group.Wait()
				},
				func() {
					var m sync.Mutex
					m.Lock()
					m.Lock()
				},
			} {
				go wait()
			}
			// Without one that waits for something outside, the bubble would be a deadlock.
			<-never
		})
	}
	everything := func(string, string) (bool, error) { return true, nil }
	go testing.Main(everything, []testing.InternalTest{{Name: "bubble", F: test}}, nil, nil)
}
