package main

import (
	"context"
	"net"
	"time"

	"gotracer.test/programs/report"
)

// sleeps: what the request starts sleeps on, the request's end or no.
func sleeps(site *report.Site, leak bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	site.Next()
	go retryLater(ctx, leak)
	time.Sleep(time.Millisecond)
}

func retryLater(ctx context.Context, leak bool) {
	if leak {
		time.Sleep(time.Hour)
		return
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

var silent net.Listener

// listen accepts connections and never says a word.
func listen(*report.Site, bool) {
	var err error
	if silent, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		report.Fail("%v", err)
	}
	go func() {
		var all []net.Conn
		for {
			conn, err := silent.Accept()
			if err != nil {
				report.Fail("%v", err)
			}
			all = append(all, conn)
		}
	}()
}

// reads: it reads from a peer that does not answer, without a deadline, and nobody closes the connection.
func reads(site *report.Site, leak bool) {
	conn, err := net.Dial("tcp", silent.Addr().String())
	if err != nil {
		report.Fail("%v", err)
	}
	site.Next()
	go readAnswer(conn)
	time.Sleep(time.Millisecond)
	if !leak {
		conn.Close()
	}
}

func readAnswer(conn net.Conn) {
	buffer := make([]byte, 100)
	conn.Read(buffer)
}

// otherContext: it honours a context, but not the request's.
func otherContext(site *report.Site, leak bool) {
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string)
	site.Next()
	go writeLines(ctx, lines)
	<-lines
	if !leak {
		cancel()
		return
	}
	_ = cancel
}

func writeLines(ctx context.Context, lines chan<- string) {
	for {
		select {
		case lines <- "a line":
		case <-ctx.Done():
			return
		}
	}
}

// shutdown ends with the program.
var shutdown = make(chan int)

// sharedEvents: it waits for the program's end and not for the request's.
func sharedEvents(site *report.Site, leak bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if leak {
		ctx = nil
	}
	site.Next()
	go awaitShutdown(ctx)
	time.Sleep(time.Millisecond)
}

func awaitShutdown(ctx context.Context) {
	if ctx == nil {
		<-shutdown
		return
	}
	select {
	case <-shutdown:
	case <-ctx.Done():
	}
}

// ticker: it polls for as long as the program lives.
func ticker(site *report.Site, leak bool) {
	ticks, quit := time.NewTicker(100*time.Millisecond), make(chan struct{})
	if leak {
		quit = nil
	}
	site.Next()
	go poll(ticks, quit)
	time.Sleep(time.Millisecond)
	if !leak {
		ticks.Stop()
		close(quit)
	}
}

func poll(ticks *time.Ticker, quit <-chan struct{}) {
	if quit == nil {
		for range ticks.C {
		}
	}
	for {
		select {
		case <-ticks.C:
		case <-quit:
			return
		}
	}
}
