// Command degrading is a server that a circuit breaker can help: its handler waits for a backend that does not answer, so
// goroutines pile up. On SIGUSR1 it answers from a cache and lets go of all that wait; when the backend is well again it goes
// back to it. docs/agent.md has the agent's side.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// breaker is closed while the backend is asked.
type breaker struct {
	open   atomic.Bool
	cancel atomic.Pointer[context.CancelFunc]
	ctx    atomic.Pointer[context.Context]
}

// reset begins to ask the backend (again).
func (b *breaker) reset() {
	ctx, cancel := context.WithCancel(context.Background())
	b.ctx.Store(&ctx)
	b.cancel.Store(&cancel)
	b.open.Store(false)
}

// trip answers from the cache, and ends all that wait.
func (b *breaker) trip() {
	b.open.Store(true)
	(*b.cancel.Load())()
}

var (
	toBackend breaker
	healthy   atomic.Bool
)

func main() {
	toBackend.reset()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/", handle)
	go http.Serve(listener, nil)
	help := make(chan os.Signal, 1)
	signal.Notify(help, syscall.SIGUSR1)
	go load("http://" + listener.Addr().String())
	go func() {
		// Its parent holds the other end: when the test is gone, so is this.
		io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	fmt.Println("READY")

	<-help
	toBackend.trip()
	fmt.Println("DEGRADED")
	time.Sleep(2 * time.Second)
	healthy.Store(true)
	toBackend.reset()
	fmt.Println("RECOVERED")
	select {}
}

// handle starts a query and, while the backend is not well, leaves it behind.
func handle(w http.ResponseWriter, _ *http.Request) {
	if toBackend.open.Load() {
		io.WriteString(w, "from the cache\n")
		return
	}
	answer := make(chan string, 1)
	go query(*toBackend.ctx.Load(), answer)
	select {
	case text := <-answer:
		io.WriteString(w, text)
	case <-time.After(5 * time.Millisecond):
		http.Error(w, "too slow", http.StatusGatewayTimeout)
	}
}

func query(ctx context.Context, answer chan<- string) {
	if healthy.Load() {
		answer <- "from the backend\n"
		return
	}
	<-ctx.Done()
}

func load(url string) {
	for {
		time.Sleep(5 * time.Millisecond)
		response, err := http.Get(url)
		if err != nil {
			continue
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
