//go:build cgo

package main

/*
#include <unistd.h>

// Waits for an answer that is there, or never comes.
static void await_answer(int answered) {
	while (!answered)
		pause();
	usleep(1000);
}
*/
import "C"

import "gotracer.test/programs/report"

// foreign: what only programs with C in them do.
func foreign() map[string]pattern {
	return map[string]pattern{"cgo": {request: callsC}}
}

// callsC: a function of C does not return, and keeps its thread.
func callsC(site *report.Site, leak bool) {
	site.Next()
	go awaitC(leak)
}

func awaitC(leak bool) {
	if leak {
		C.await_answer(0)
		return
	}
	C.await_answer(1)
}
