// Command leakyserver is a web server with the three leaks that are met most, and a load to bring them out: a result
// that nobody waits for any more, a worker that is not told of its request's end, a ticker that is never stopped.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

var (
	leak     = flag.String("leak", "all", "how it leaks: channel, context, ticker, all, none")
	load     = flag.Int("load", 20, "requests a second that it sends to itself, spread over its pages; 0: none")
	duration = flag.Duration("for", 0, "how long it runs; 0: until it is stopped")
)

// leaks says whether this is a way in which it leaks; otherwise it does the same as it should be done.
func leaks(how string) bool { return *leak == how || *leak == "all" }

func main() {
	flag.Parse()
	switch *leak {
	case "channel", "context", "ticker", "all", "none":
	default:
		log.Fatalf("no -leak %q; there are channel, context, ticker, all and none", *leak)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/search", search)
	mux.HandleFunc("/report", makeReport)
	mux.HandleFunc("/subscribe", subscribe)
	mux.HandleFunc("/healthy", healthy)
	go http.Serve(listener, mux)
	fmt.Printf("READY {\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)

	if *load > 0 {
		go sendLoad("http://" + listener.Addr().String())
	}
	if *duration > 0 {
		time.Sleep(*duration)
		return
	}
	select {}
}

// search gives up waiting before the query is through, and then nobody receives the result.
func search(w http.ResponseWriter, _ *http.Request) {
	result := make(chan string)
	if !leaks("channel") {
		result = make(chan string, 1)
	}
	go query(result)
	select {
	case found := <-result:
		io.WriteString(w, found)
	case <-time.After(5 * time.Millisecond):
		http.Error(w, "too slow", http.StatusGatewayTimeout)
	}
}

func query(result chan<- string) {
	time.Sleep(10 * time.Millisecond)
	result <- "found"
}

// makeReport does not hand its request's context on: the worker waits for the end of one that never ends.
func makeReport(w http.ResponseWriter, _ *http.Request) {
	lines := make(chan string)
	ctx, cancel := context.WithCancel(context.Background())
	if !leaks("context") {
		defer cancel()
	}
	go writeLines(ctx, lines)
	io.WriteString(w, <-lines)
}

func writeLines(ctx context.Context, lines chan<- string) {
	for {
		select {
		case lines <- "a line\n":
		case <-ctx.Done():
			return
		}
	}
}

// subscribe starts a poller that outlives its subscriber.
func subscribe(w http.ResponseWriter, _ *http.Request) {
	ticker, gone := time.NewTicker(time.Second), make(chan bool)
	if !leaks("ticker") {
		defer close(gone)
	}
	go pollForNews(ticker, gone)
	io.WriteString(w, "subscribed\n")
}

func pollForNews(ticker *time.Ticker, gone <-chan bool) {
	for {
		select {
		case <-ticker.C:
		case <-gone:
			ticker.Stop()
			return
		}
	}
}

// healthy starts a goroutine as the others do, and waits for its end.
func healthy(w http.ResponseWriter, _ *http.Request) {
	done := make(chan bool)
	go compute(done)
	<-done
	io.WriteString(w, "fine\n")
}

func compute(done chan<- bool) {
	time.Sleep(time.Millisecond)
	done <- true
}

func sendLoad(url string) {
	pages := []string{"/search", "/report", "/subscribe", "/healthy"}
	for i := 0; ; i++ {
		time.Sleep(time.Second / time.Duration(*load))
		response, err := http.Get(url + pages[i%len(pages)])
		if err != nil {
			log.Print(err)
			continue
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
