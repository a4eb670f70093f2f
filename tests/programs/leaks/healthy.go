package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"gotracer.test/programs/report"
)

var work1 = make(chan func())

// startPool: workers that wait for work, all on one channel.
func startPool(site *report.Site, _ bool) {
	for i := 0; i < 50; i++ {
		site.Next()
		go func() {
			for job := range work1 {
				job()
			}
		}()
	}
}

func usePool(*report.Site, bool) {
	work1 <- func() { time.Sleep(time.Millisecond) }
}

var (
	address string
	client  = http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
)

// startServer: connections that are kept alive, each with goroutines at both ends.
func startServer(site *report.Site, _ bool) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		report.Fail("%v", err)
	}
	address = "http://" + listener.Addr().String()
	site.Next()
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond)
		io.WriteString(w, "hello")
	}))
}

func useServer(*report.Site, bool) {
	answer, err := client.Get(address)
	if err != nil {
		report.Fail("%v", err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

// errGroup: as golang.org/x/sync/errgroup: the first error cancels the others, and all are waited for.
func errGroup(site *report.Site, _ bool) {
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for i := 0; i < 5; i++ {
		i := i
		group.Add(1)
		site.Next()
		go func() {
			defer group.Done()
			if i == 2 {
				time.Sleep(time.Millisecond)
				cancel()
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}()
	}
	group.Wait()
}

type flight struct {
	sync.Mutex
	under *sync.WaitGroup
}

var flights flight

// singleFlight: as golang.org/x/sync/singleflight: one does it, the others wait for the same result.
func singleFlight(site *report.Site, _ bool) {
	flights.Lock()
	if under := flights.under; under != nil {
		flights.Unlock()
		under.Wait()
		return
	}
	under := new(sync.WaitGroup)
	under.Add(1)
	flights.under = under
	flights.Unlock()
	site.Next()
	go func() {
		time.Sleep(20 * time.Millisecond)
		flights.Lock()
		flights.under = nil
		flights.Unlock()
		under.Done()
	}()
	under.Wait()
}

type hub struct {
	sync.Mutex
	subscribers map[chan string]bool
}

var news = hub{subscribers: map[chan string]bool{}}

// startHub: subscribers that stay, each with a channel of its own that the hub's map holds.
func startHub(site *report.Site, _ bool) {
	for i := 0; i < 200; i++ {
		subscriber := make(chan string, 4)
		news.subscribers[subscriber] = true
		site.Next()
		go func() {
			for range subscriber {
			}
		}()
	}
}

func publish(*report.Site, bool) {
	news.Lock()
	defer news.Unlock()
	for subscriber := range news.subscribers {
		select {
		case subscriber <- "news":
		default:
		}
	}
}
