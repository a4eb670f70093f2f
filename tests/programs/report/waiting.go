package report

import (
	"bytes"
	"runtime"
	"time"
)

// AwaitAllWait waits until nothing but the caller runs, by the runtime's own traceback: every goroutine is entered, and waits.
func AwaitAllWait() {
	deadline := time.Now().Add(20 * time.Second)
	for {
		buffer := make([]byte, 8<<20)
		buffer = buffer[:runtime.Stack(buffer, true)]
		running := 0
		for _, line := range bytes.Split(buffer, []byte("\n")) {
			if bytes.HasPrefix(line, []byte("goroutine ")) && bytes.Contains(line, []byte(" [runn")) {
				running++
			}
		}
		if running == 1 {
			return
		}
		if time.Now().After(deadline) {
			Fail("%d goroutines do not wait:\n%s", running, buffer)
		}
		time.Sleep(time.Millisecond)
	}
}
