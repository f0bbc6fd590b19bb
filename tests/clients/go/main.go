// The driver of franz-go. README.md one folder up lists the commands; each is one JSON object on a line of stdin, and
// what happens is told in JSON lines on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// order is one command with all the fields that any command has.
type order struct {
	Cmd         string             `json:"cmd"`
	Bootstrap   string             `json:"bootstrap"`
	Topic       string             `json:"topic"`
	Partitions  int32              `json:"partitions"`
	Replicas    int16              `json:"replicas"`
	Producer    string             `json:"producer"`
	Acks        string             `json:"acks"`
	Idempotent  bool               `json:"idempotent"`
	Codec       string             `json:"codec"`
	LingerMs    int64              `json:"linger_ms"`
	Count       int64              `json:"count"`
	PerSecond   int64              `json:"per_second"`
	ValueBytes  int64              `json:"value_bytes"`
	TimestampMs int64              `json:"timestamp_ms"`
	From        string             `json:"from"`
	TimeoutS    int64              `json:"timeout_s"`
	Group       string             `json:"group"`
	Client      string             `json:"client"`
	Instance    string             `json:"instance"`
	SessionMs   int64              `json:"session_ms"`
	CommitEvery int64              `json:"commit_every"`
	Op          string             `json:"op"`
	Configs     map[string]*string `json:"configs"`
	Offsets     map[string][2]any  `json:"offsets"`
	Mark        string             `json:"mark"`

	// stopped ends when the orchestrator says stop.
	stopped context.Context
}

type event map[string]any

var speaking sync.Mutex

func say(kind string, fields event) {
	if fields == nil {
		fields = event{}
	}
	fields["t"] = kind
	line, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	speaking.Lock()
	defer speaking.Unlock()
	os.Stdout.Write(append(line, '\n'))
}

// quick finds a restarted broker soon.
func (o *order) quick() []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(strings.Split(o.Bootstrap, ",")...),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryTimeout(60 * time.Second),
	}
}

var commands = map[string]func(*order) error{
	"produce":   produce,
	"read":      read,
	"group":     group,
	"commit":    commit,
	"committed": committed,
	"admin":     admin,
	"wrong":     wrong,
}

func main() {
	orders := make(chan *order, 16)
	var current sync.Mutex
	stop := func() {}
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			next := &order{}
			if err := json.Unmarshal(lines.Bytes(), next); err != nil {
				say("error", event{"e": err.Error()})
				continue
			}
			current.Lock()
			if next.Cmd == "stop" {
				stop()
			} else {
				next.stopped, stop = context.WithCancel(context.Background())
				orders <- next
			}
			current.Unlock()
		}
		current.Lock()
		stop()
		current.Unlock()
		close(orders)
	}()
	for next := range orders {
		err := fmt.Errorf("there is no command %q", next.Cmd)
		if run, known := commands[next.Cmd]; known {
			err = run(next)
		}
		var refused *kerr.Error
		switch {
		case err == nil:
			say("done", nil)
		case errors.As(err, &refused):
			say("refused", event{"code": refused.Code, "fatal": false, "e": err.Error()})
		default:
			say("error", event{"e": err.Error()})
		}
	}
}
