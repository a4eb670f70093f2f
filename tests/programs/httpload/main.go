// Command httpload is a server and its clients in one: each request costs a goroutine and a wait on a channel, beside
// what net/http itself starts.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"gotracer.test/programs/report"
)

var (
	clients = flag.Int("clients", 8, "clients that ask without a pause")
	seconds = flag.Float64("seconds", 0, "how long they do; 0: until it is sent the line stop; to requests it says how many there were")
)

var (
	perRequest = report.New(0)
	requests   int64
	stop       int32
)

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		report.Fail("%v", err)
	}
	perRequest.Blocked = -1
	go http.Serve(listener, http.HandlerFunc(serve))
	report.Ready(fmt.Sprintf(`{"port":%d}`, listener.Addr().(*net.TCPAddr).Port))
	report.Await("go")

	started, done := time.Now(), make(chan error)
	askers := report.New(*clients)
	for i := 0; i < *clients; i++ {
		askers.Next()
		go ask(askers, "http://"+listener.Addr().String(), done)
	}
	fmt.Println("RUNNING")
	if *seconds > 0 {
		time.Sleep(time.Duration(*seconds * float64(time.Second)))
	} else {
		for line := report.Line(); line != "stop"; line = report.Line() {
			if line != "requests" {
				report.Fail("the test sent %q where requests or stop was due", line)
			}
			fmt.Printf("REQUESTS %d\n", atomic.LoadInt64(&requests))
		}
	}
	atomic.StoreInt32(&stop, 1)
	for i := 0; i < *clients; i++ {
		if err := <-done; err != nil {
			report.Fail("a client: %v", err)
		}
	}
	took := time.Since(started)

	report.AwaitGone(askers, perRequest)
	perRequest.Created, perRequest.Exited = requests, requests
	askers.Blocked = -1
	report.TallyWith(fmt.Sprintf(`"requests":%d,"requests_per_second":%.0f,`, requests, float64(requests)/took.Seconds()),
		perRequest, askers)
	report.Await("quit")
}

func serve(w http.ResponseWriter, r *http.Request) {
	result := make(chan string)
	if atomic.AddInt64(&requests, 1) == 1 {
		perRequest.Ahead(2)
	}
	go work(result)
	io.WriteString(w, <-result)
}

//go:noinline
func work(result chan<- string) {
	result <- "done\n"
}

func ask(site *report.Site, url string, done chan<- error) {
	site.Enter()
	client := &http.Client{Transport: &http.Transport{}}
	var err error
	for err == nil && atomic.LoadInt32(&stop) == 0 {
		var response *http.Response
		if response, err = client.Get(url); err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	}
	client.CloseIdleConnections()
	site.Leave()
	done <- err
}
