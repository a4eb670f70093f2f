// Package report is how a test program and its test speak: READY, a line to go on, an exact tally, a line to end.
//
// Nothing here starts a goroutine, and nothing parks a goroutine that is counted: only main calls what polls.
package report

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// patience bounds every wait for something that must happen. It is long because a loaded machine is slow, and it is
// there so that a program that is wrong says so instead of hanging.
const patience = 60 * time.Second

// Ready says that the program can be attached to. details is empty or a JSON object.
func Ready(details string) {
	fmt.Fprintf(os.Stdout, "READY %s\n", details)
}

// Await blocks until the test has sent this line, as [Line] does.
func Await(line string) {
	if got := Line(); got != line {
		Fail("the test sent %q where %q was due", got, line)
	}
}

// Line is the next line of the test. It blocks in a system call, not in the scheduler, until that has come. It ends the
// program when the test is gone, so that a failed test leaves no process behind.
func Line() string {
	var got strings.Builder
	buf := make([]byte, 1)
	for {
		n, err := os.Stdin.Read(buf)
		if n == 0 || err != nil {
			os.Exit(3)
		}
		if buf[0] == '\n' {
			break
		}
		got.WriteByte(buf[0])
	}
	return got.String()
}

// Fail ends the program: it could not do what it is there to count.
func Fail(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "test program: "+format+"\n", args...)
	os.Exit(4)
}

// Site is one `go` statement and what its goroutines did, as the program knows it.
type Site struct {
	Function string
	File     string
	Line     int
	Created  int64
	Exited   int64
	// Blocked counts parks. It is -1 where the program cannot know the number exactly.
	Blocked int64
	// Reasons is Blocked by the runtime's own name of the wait reason, as its tracebacks give it.
	Reasons map[string]int64
	// Parent is the goroutine that ran the `go` statement.
	Parent int64
	goids  []int64
}

// New makes a site of up to n goroutines. Next says where it is.
func New(n int) *Site {
	return &Site{Reasons: map[string]int64{}, goids: make([]int64, 0, n)}
}

// Next stands in the line above the `go` statement, and is run by the goroutine that runs it.
func (s *Site) Next() { s.ahead(1) }

// Ahead stands some lines above the `go` statement, where telling the site each time would cost too much.
func (s *Site) Ahead(lines int) { s.ahead(lines) }

func (s *Site) ahead(lines int) {
	pc, file, line, _ := runtime.Caller(2)
	s.Function, s.File, s.Line = runtime.FuncForPC(pc).Name(), file, line+lines
	s.Parent = Goid()
}

// Enter is called first by each goroutine of the site. It must neither lock nor wait.
func (s *Site) Enter() {
	i := atomic.AddInt64(&s.Created, 1) - 1
	s.goids[:cap(s.goids)][i] = Goid()
}

// Leave is called last by each goroutine of the site that ends.
func (s *Site) Leave() {
	atomic.AddInt64(&s.Exited, 1)
}

// Goid is the number of the calling goroutine, from the head of its own traceback.
func Goid() int64 {
	buf := make([]byte, 64)
	text := strings.TrimPrefix(string(buf[:runtime.Stack(buf, false)]), "goroutine ")
	goid, err := strconv.ParseInt(text[:strings.IndexByte(text, ' ')], 10, 64)
	if err != nil {
		Fail("no goroutine number in %q", text)
	}
	return goid
}

// Tally prints the sums and the sites as one line of JSON.
func Tally(sites ...*Site) {
	TallyWith("", sites...)
}

// TallyWith adds members to the object: extra is empty or ends with a comma.
func TallyWith(extra string, sites ...*Site) {
	var created, exited, blocked int64
	var list []string
	for _, s := range sites {
		created += s.Created
		exited += s.Exited
		if s.Blocked < 0 || blocked < 0 {
			blocked = -1
		} else {
			blocked += s.Blocked
		}
		list = append(list, s.json())
	}
	fmt.Fprintf(os.Stdout, `TALLY {%s"created":%d,"exited":%d,"blocked":%d,"sites":[%s]}`+"\n",
		extra, created, exited, blocked, strings.Join(list, ","))
}

func (s *Site) json() string {
	var reasons []string
	for reason, n := range s.Reasons {
		reasons = append(reasons, fmt.Sprintf("%q:%d", reason, n))
	}
	sort.Strings(reasons)
	var goids []string
	for _, goid := range s.goids[:min(s.Created, int64(cap(s.goids)))] {
		goids = append(goids, strconv.FormatInt(goid, 10))
	}
	return fmt.Sprintf(`{"site":{"function":%q,"file":%q,"line":%d},"parent":%d,"created":%d,"exited":%d,"blocked":%d,`+
		`"reasons":{%s},"goids":[%s]}`, s.Function, s.File, s.Line, s.Parent, s.Created, s.Exited, s.Blocked,
		strings.Join(reasons, ","), strings.Join(goids, ","))
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}
