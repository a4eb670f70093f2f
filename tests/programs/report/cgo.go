//go:build cgo

package report

// int gotracer_test_answer(void) { return 42; }
import "C"

// A program without a call into C is linked by Go's own linker even with cgo on.
func init() {
	if C.gotracer_test_answer() != 42 {
		Fail("C gave the wrong answer")
	}
}
