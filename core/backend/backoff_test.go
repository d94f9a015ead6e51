package backend

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBackoffSteps(t *testing.T) {
	var limits []time.Duration
	b := backoff{uniform: func(limit time.Duration) time.Duration {
		limits = append(limits, limit)
		return limit
	}}
	for i, want := range []time.Duration{10, 21, 41, 81, 121, 121, 121} {
		if got := b.next(&setback{}); got != want*time.Second {
			t.Errorf("try %d: waits up to %v, want %v s", i, got, want)
		}
	}
	b.reset()
	if got := b.next(&setback{}); got != 10*time.Second {
		t.Errorf("after a reset: %v", got)
	}
}

// TestBackoffCauses: the least and the most a cause makes the agent wait, on its first failure.
func TestBackoffCauses(t *testing.T) {
	for _, test := range []struct {
		name        string
		setback     setback
		least, most time.Duration
	}{
		{"ordinary", setback{}, 0, 10 * time.Second},
		{"local", setback{kind: local}, 0, time.Second},
		{"no key", setback{kind: keyless}, time.Minute, 66 * time.Second},
		{"keyring locked", setback{kind: locked}, 30 * time.Second, 33 * time.Second},
		{"key refused", setback{kind: refused}, 5 * time.Minute, 330 * time.Second},
		{"host barred", setback{kind: barred}, 5 * time.Minute, 330 * time.Second},
		{"TLS", setback{kind: untrusted}, time.Minute, 70 * time.Second},
		{"1012", setback{kind: restarting}, 5 * time.Second, 30 * time.Second},
		{"1013", setback{kind: overloaded}, 30 * time.Second, time.Minute},
		{"4001", setback{kind: replaced}, time.Minute, 2 * time.Minute},
		{"Retry-After", setback{retryAfter: 90 * time.Second}, 90 * time.Second, 100 * time.Second},
		{"Retry-After of a year", setback{retryAfter: 8760 * time.Hour}, time.Hour, time.Hour + 10*time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			lowest := backoff{uniform: func(time.Duration) time.Duration { return 0 }}
			highest := backoff{uniform: func(limit time.Duration) time.Duration { return limit }}
			if least, most := lowest.next(&test.setback), highest.next(&test.setback); least != test.least || most != test.most {
				t.Errorf("waits %v to %v, want %v to %v", least, most, test.least, test.most)
			}
		})
	}
}

// TestBackoffWidens: where only a person can help, the tries grow rare, and start over with another cause.
func TestBackoffWidens(t *testing.T) {
	b := backoff{uniform: func(time.Duration) time.Duration { return 0 }}
	waits := func(kind kind, unit time.Duration, want ...time.Duration) {
		t.Helper()
		for i, want := range want {
			if got := b.next(&setback{kind: kind}); got != want*unit {
				t.Errorf("try %d: waits %v, want %v", i, got, want*unit)
			}
		}
	}
	waits(locked, time.Second, 30, 60, 120, 240, 300, 300)
	waits(refused, time.Minute, 5, 10, 20, 40, 80, 160, 320, 360, 360)
	waits(barred, time.Minute, 5, 10)
	waits(keyless, time.Minute, 1, 1, 1)
	waits(refused, time.Minute, 5, 10)
	for range 100 {
		b.next(&setback{kind: refused})
	}
	waits(refused, time.Minute, 360)
	b.reset()
	waits(refused, time.Minute, 5)
}

// TestBackoffAfterSleep: a machine that wakes up tries at once what nobody asked it to wait for.
func TestBackoffAfterSleep(t *testing.T) {
	b := backoff{uniform: func(limit time.Duration) time.Duration { return limit }}
	for _, test := range []struct {
		setback    setback
		left, want time.Duration
	}{
		{setback{}, 2 * time.Minute, time.Second},
		{setback{kind: local}, time.Minute, time.Second},
		{setback{kind: keyless}, time.Minute, time.Second},
		{setback{kind: locked}, time.Minute, time.Second},
		{setback{kind: barred}, 4 * time.Minute, 4*time.Minute + time.Second},
		{setback{kind: refused}, 4 * time.Minute, 4*time.Minute + time.Second},
		{setback{kind: refused}, -time.Hour, time.Second},
		{setback{kind: untrusted}, 30 * time.Second, 31 * time.Second},
		{setback{kind: replaced}, 30 * time.Second, 31 * time.Second},
		{setback{kind: restarting}, 30 * time.Second, 31 * time.Second},
		{setback{kind: overloaded}, 30 * time.Second, 31 * time.Second},
		{setback{retryAfter: time.Hour}, 30 * time.Minute, 30*time.Minute + time.Second},
	} {
		if got := b.afterSleep(&test.setback, test.left); got != test.want {
			t.Errorf("%+v with %v left: waits %v, want %v", test.setback, test.left, got, test.want)
		}
	}
}

// TestHerd runs this very backoff for 100,000 agents that lose their backend at the same moment.
// The backend takes 2,000 connections a second and refuses the rest.
func TestHerd(t *testing.T) {
	if testing.Short() {
		t.Skip("a simulation of 100,000 agents")
	}
	for _, test := range []struct {
		outage     time.Duration
		peak       int           // connections tried in the worst second after the backend is back
		lastWithin time.Duration // of the backend's return, for 99 % of the agents
	}{
		{time.Second, 15_000, 120 * time.Second},
		{30 * time.Second, 4_000, 120 * time.Second},
		{10 * time.Minute, 2_000, 120 * time.Second},
	} {
		t.Run(fmt.Sprint(test.outage), func(t *testing.T) {
			t.Parallel()
			peak, p99 := simulate(100_000, 2_000, test.outage)
			t.Logf("peak %d/s, 99 %% back within %v", peak, p99)
			if peak > test.peak || p99 > test.lastWithin {
				t.Errorf("peak %d/s, want at most %d; 99 %% within %v, want %v", peak, test.peak, p99, test.lastWithin)
			}
		})
	}
}

// simulate gives the worst second and the 99th percentile of coming back.
func simulate(agents, capacity int, outage time.Duration) (peak int, p99 time.Duration) {
	random := rand.New(rand.NewPCG(1, 2))
	queue := make(tries, agents)
	for i := range queue {
		queue[i].backoff.uniform = func(limit time.Duration) time.Duration { return time.Duration(random.Int64N(int64(limit))) }
		queue[i].at = queue[i].backoff.next(&setback{})
	}
	heap.Init(&queue)
	second, tried, back := time.Duration(-1), 0, 0
	for back < agents*99/100 {
		agent := &queue[0]
		if now := agent.at.Truncate(time.Second); now != second {
			second, tried = now, 0
		}
		tried++
		if agent.at < outage || tried > capacity {
			agent.at += agent.backoff.next(&setback{})
			heap.Fix(&queue, 0)
		} else {
			back++
			p99 = agent.at - outage
			heap.Pop(&queue)
		}
		if second >= outage {
			peak = max(peak, tried)
		}
	}
	return peak, p99
}

// tries are agents in the order of their next try.
type tries []struct {
	at      time.Duration
	backoff backoff
}

func (t tries) Len() int           { return len(t) }
func (t tries) Less(i, j int) bool { return t[i].at < t[j].at }
func (t tries) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *tries) Push(any)          { panic("agents do not join") }
func (t *tries) Pop() any {
	last := len(*t) - 1
	agent := (*t)[last]
	*t = (*t)[:last]
	return agent
}
