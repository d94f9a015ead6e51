package keyring_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/distributedcompute/host-agent/core/keyring"
)

const (
	quick = 3 * time.Second // how long the keyring has to answer

	market   = "https://market.example"
	firstKey = "dch_test_first_key"
	nextKey  = "dch_test_next_key"
)

func wantIn(t *testing.T, source keyring.Source, place string) {
	t.Helper()
	if !strings.HasPrefix(string(source), place) {
		t.Fatalf("the key is in %q, want %s", source, place)
	}
}

func (h host) unavailable(reason string) answer {
	h.t.Helper()
	a := h.do("find")
	if !a.Unavailable || a.None || a.Key != "" || !strings.Contains(a.Err, reason) {
		h.t.Fatalf("got %q from %q: %s; want unavailable for %q", a.Key, a.Source, a.Err, reason)
	}
	return a
}

func TestKeyLivesInTheKeyring(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{Origin: market})
	if a := h.do("find"); !a.None {
		t.Fatalf("before there is a key: %q, %s", a.Key, a.Err)
	}

	first := h.keeps(firstKey)
	wantIn(t, first, `desktop keyring, entry "https://market.example `)
	if got := s.lookup(first); got != firstKey {
		t.Errorf("secret-tool finds %q", got)
	}
	if found := h.finds(firstKey); found != first {
		t.Errorf("kept in %q, found in %q", first, found)
	}
	entries, _ := os.ReadDir(filepath.Join(s.dir, "state"))
	if len(entries) != 1 || entries[0].Name() != "key-place.json" {
		t.Errorf("the state directory holds %v, want the note of the place alone", entries)
	}

	second := h.keeps(nextKey)
	h.finds(nextKey)
	if got := s.lookup(second); got != nextKey {
		t.Errorf("secret-tool finds %q", got)
	}
	if n := s.entries(); n != 1 {
		t.Errorf("the keyring holds %d entries after the key was replaced, want 1", n)
	}
	h.keeps(firstKey)
	// Another process of the host finds it, and the key of another marketplace is none.
	s.host(keyring.Options{Origin: market}).finds(firstKey)
	if a := s.host(keyring.Options{Origin: "https://other.example"}).do("find"); !a.None || !strings.Contains(a.Err, "the one kept here is for https://market.example") {
		t.Errorf("for another marketplace: got %q, %s", a.Key, a.Err)
	}

	if a := h.do("forget"); a.Err != "" || a.Left != "" {
		t.Errorf("forgetting: %q, %s", a.Left, a.Err)
	}
	if n := s.entries(); n != 0 {
		t.Errorf("the keyring holds %d entries after forgetting, want none", n)
	}
	if a := h.do("find"); !a.None {
		t.Errorf("after forgetting: got %q, %s", a.Key, a.Err)
	}
}

func TestTwoAgentsOfOneUserDoNotMix(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	if err := os.Mkdir(filepath.Join(s.dir, "state2"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.give("state2")
	one, two := s.host(keyring.Options{Origin: market}), s.host(keyring.Options{Origin: market, StateDir: filepath.Join(s.dir, "state2")})
	one.keeps(firstKey)
	two.keeps(nextKey)
	one.finds(firstKey)
	one.do("forget")
	two.finds(nextKey)
}

func TestEntryRemovedByItsOwnerIsNone(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{})
	h.keeps(firstKey)
	s.run("secret-tool", "clear", "service", "DistributedCompute Host")
	if a := h.do("find"); !a.None || !strings.Contains(a.Err, "no longer has its entry") {
		t.Errorf("got %q, %s", a.Key, a.Err)
	}
	if a := h.do("forget"); a.Err != "" {
		t.Errorf("forgetting what is gone: %s", a.Err)
	}
}

func TestEntryThatSomebodyChanged(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{})
	entry := s.entry(h.keeps(firstKey))
	s.run("secret-tool", "clear", "service", "DistributedCompute Host")
	store := s.command("secret-tool", "store", "--label=changed", "service", "DistributedCompute Host", "username", entry)
	store.Stdin = strings.NewReader("two words")
	if out, err := store.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if a := h.do("find"); a.Key != "" || a.None || !strings.HasPrefix(a.Err, `entry "`+entry+`" of the desktop's keyring: a host key takes`) {
		t.Errorf("got %q, %s", a.Key, a.Err)
	}
}

// What cannot be asked is not empty, and is not left for another place either.
func TestKeyringThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	real := s.startKeyring(false)
	s.host(keyring.Options{}).keeps(firstKey)
	h := s.host(keyring.Options{}) // has no connection yet
	withBus := s.env
	stop(real)

	t.Run("no keyring on the bus", func(t *testing.T) {
		h.unavailable("org.freedesktop.secrets was not provided")
	})
	t.Run("locked without a screen", func(t *testing.T) {
		real = s.startKeyring(true)
		h.unavailable("failed to unlock")
	})
	t.Run("what cannot be removed is not forgotten", func(t *testing.T) {
		for range 2 {
			if a := h.do("forget"); !strings.Contains(a.Err, "cannot be removed now") {
				t.Errorf("got %s", a.Err)
			}
			h.unavailable("failed to unlock")
		}
	})
	t.Run("open again", func(t *testing.T) {
		stop(real)
		real = s.startKeyring(false)
		if n := s.entries(); n != 1 {
			t.Fatalf("%d entries, want the one that could not be removed", n)
		}
		h.finds(firstKey)
		if a := h.do("forget"); a.Err != "" || s.entries() != 0 {
			t.Errorf("%d entries, %s; want none", s.entries(), a.Err)
		}
		h.keeps(nextKey)
		h.finds(nextKey)
	})
	t.Run("no session bus", func(t *testing.T) {
		needs(t, "dbus-launch", "dbus-x11") // without which the library could not start one
		s.env = s.env[:len(s.env)-1]
		s.host(keyring.Options{}).unavailable("no session bus")
		for pid, program := range s.programs() {
			if strings.HasPrefix(program, "dbus-") && pid != s.bus.Process.Pid {
				t.Errorf("%s was started", program)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	t.Run("dead address", func(t *testing.T) {
		s.env = append(s.env[:len(s.env):len(s.env)], "DBUS_SESSION_BUS_ADDRESS=unix:path="+s.dir+"/none")
		s.host(keyring.Options{}).unavailable("dial unix")
	})
	t.Run("there again", func(t *testing.T) {
		s.env = withBus
		wantIn(t, s.host(keyring.Options{}).finds(nextKey), "desktop keyring")
	})
}

func TestRootHasNoKeyring(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("becoming root takes root")
	}
	t.Parallel()
	s := newSession(t)
	s.uid = 0 // even a keyring that takes root's word for it
	s.startBus().startKeyring(false)
	root := s.host(keyring.Options{})
	wantIn(t, root.keeps(nextKey), "encrypted file")
	root.finds(nextKey)
}

// A key that went to the file stays there when a keyring turns up, until its owner signs in anew.
func TestKeyringThatComesLater(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	h := s.host(keyring.Options{Origin: market})
	file := h.keeps(firstKey)
	wantIn(t, file, "encrypted file ")
	s.startKeyring(false)
	if found := h.finds(firstKey); found != file {
		t.Errorf("kept in %q, found in %q", file, found)
	}
	wantIn(t, h.keeps(nextKey), "encrypted file ")
	if n := s.entries(); n != 0 {
		t.Errorf("%d entries in the keyring, want none", n)
	}
	h.do("forget")
	wantIn(t, h.keeps(firstKey), "desktop keyring")
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "state")); len(entries) != 1 {
		t.Errorf("the state directory holds %v", entries)
	}
}

// The key of another marketplace is a new beginning.
func TestKeyOfAnotherMarketplaceTakesThePlaceOfTheFile(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	wantIn(t, s.host(keyring.Options{Origin: market}).keeps(firstKey), "encrypted file ")
	s.startKeyring(false)
	h := s.host(keyring.Options{Origin: "https://other.example"})
	wantIn(t, h.keeps(nextKey), "desktop keyring")
	if entries, _ := os.ReadDir(filepath.Join(s.dir, "state")); len(entries) != 1 {
		t.Errorf("the state directory holds %v, want the note of the place alone", entries)
	}
}

func TestOlderEntriesGoWithTheNextKey(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{})
	entry := s.entry(h.keeps(firstKey))
	store := s.command("secret-tool", "store", "--label=older", "service", "DistributedCompute Host", "username", "older")
	store.Stdin = strings.NewReader("dch_test_older_key")
	if out, err := store.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	note := `{"kind":"keyring","entry":"` + entry + `","left":["older"]}`
	if err := os.WriteFile(filepath.Join(s.dir, "state", "key-place.json"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	h.keeps(nextKey)
	if n := s.entries(); n != 1 {
		t.Errorf("the keyring holds %d entries, want 1", n)
	}
}

func TestFileOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("being two users takes root")
	}
	t.Parallel()
	s := newSession(t)
	s.uid = 0
	s.host(keyring.Options{}).keeps(firstKey)
	s.uid = nobody
	s.give("state")
	for _, name := range []string{"key-place.json", "credentials.age", "credentials.salt"} {
		s.give("state/" + name)
	}
	if a := s.host(keyring.Options{}).do("find"); a.Key != "" || !strings.Contains(a.Err, "by another user and cannot be opened here") {
		t.Errorf("got %q, %s", a.Key, a.Err)
	}
}

// A new key has to go somewhere when the keyring does not take it, and the old one goes once it can.
func TestKeyMovesToTheFileWhenTheKeyringIsGone(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	real := s.startKeyring(false)
	h := s.host(keyring.Options{})
	h.keeps(firstKey)
	stop(real)
	wantIn(t, h.keeps(nextKey), "encrypted file ")
	h.finds(nextKey)
	s.startKeyring(false)
	h.keeps(firstKey)
	if n := s.entries(); n != 0 {
		t.Errorf("%d old keys in the keyring, want none", n)
	}
	wantIn(t, h.finds(firstKey), "encrypted file ")
}

func TestFailedKeepLeavesTheEntryOfBefore(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{})
	h.keeps(firstKey)
	state := filepath.Join(s.dir, "state")
	// The disk takes neither the note of the place nor the file.
	for _, name := range []string{"key-place.json.new", "credentials.age.new"} {
		if err := os.MkdirAll(filepath.Join(state, name, "in-the-way"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if a := h.do("keep " + nextKey); a.Err == "" {
		t.Fatalf("kept in %q", a.Source)
	}
	h.finds(firstKey)
	if n := s.entries(); n != 1 {
		t.Errorf("%d entries in the keyring, want 1", n)
	}
}

func TestKeyringThatNeverAnswers(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	fake := s.fakeKeyring()
	h := s.host(keyring.Options{})
	wantIn(t, h.keeps(firstKey), "desktop keyring")
	fake.ask("lock")

	if a := h.unavailable("does not answer"); a.Took < 2900*time.Millisecond || a.Took > 4*time.Second {
		t.Errorf("it took %v, want 3 s", a.Took)
	}
	before := h.unavailable("does not answer")
	for range 50 {
		if a := h.unavailable("does not answer"); a.Took > time.Second || a.Goroutines > before.Goroutines {
			t.Fatalf("asked again: took %v, %d goroutines after %d", a.Took, a.Goroutines, before.Goroutines)
		}
	}
	if told := fake.ask("unlock"); told != "1 entries, 1 prompts" {
		t.Errorf("the keyring was asked to unlock more than once: %s", told)
	}
	s.await("the end of the prompt", func() bool { return h.do("find").Key == firstKey })

	// The bus goes while a window is open: the library panics.
	fake.ask("lock")
	var bus sync.WaitGroup
	bus.Go(func() {
		time.Sleep(300 * time.Millisecond)
		stop(s.bus)
	})
	h.unavailable("broke off")
	bus.Wait()
	h.unavailable("connect: ")
}

// A keyring that is slow is waited for, and by others too who ask meanwhile.
func TestOneQuestionAtATime(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	fake := s.fakeKeyring()
	h := s.host(keyring.Options{})
	h.keeps(firstKey)
	fake.ask("lock")
	go func() {
		time.Sleep(500 * time.Millisecond)
		fake.ask("unlock")
	}()
	if a := h.do("all find at once"); a.Key != strings.Repeat(firstKey, 5) || a.Took < 400*time.Millisecond {
		t.Errorf("got %q, %s after %v", a.Key, a.Err, a.Took)
	}
	if told := fake.ask("count"); told != "1 entries, 1 prompts" {
		t.Errorf("the keyring was asked to unlock more than once: %s", told)
	}
}

// Whoever asks may go; the keyring then owes nobody an answer, and is asked again by the next.
func TestWhoAskedGoes(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	fake := s.fakeKeyring()
	h := s.host(keyring.Options{})
	h.keeps(firstKey)
	fake.ask("lock")
	if a := h.do("find briefly"); a.Unavailable || !strings.Contains(a.Err, "context deadline exceeded") {
		t.Errorf("got %q, %s", a.Key, a.Err)
	}
	go func() {
		time.Sleep(300 * time.Millisecond)
		fake.ask("unlock")
	}()
	h.finds(firstKey)
	fake.ask("lock")
	if a := h.do("keep briefly"); !strings.Contains(a.Err, "context deadline exceeded") {
		t.Errorf("kept in %q, %s", a.Source, a.Err)
	}
	fake.ask("unlock")
	h.finds(firstKey)
	// What was set after all is taken back.
	s.await("1 entries", func() bool { return strings.HasPrefix(fake.ask("count"), "1 entries") })
}

// While a key is replaced, Find of another process gives the old one or the new one.
func TestFindWhileTheKeyIsReplaced(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	one, two := s.host(keyring.Options{}), s.host(keyring.Options{})
	one.keeps(firstKey)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 30 {
			if a := one.do("keep " + nextKey); a.Err != "" {
				t.Error(a.Err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for {
		if a := two.do("find"); a.Err != "" {
			t.Fatalf("got %q, %s", a.Key, a.Err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// Where the note of the place is damaged, its entry goes with it all the same.
func TestForgetFindsTheEntryWithoutItsNote(t *testing.T) {
	t.Parallel()
	s := newSession(t).startBus()
	s.startKeyring(false)
	h := s.host(keyring.Options{Origin: market})
	for range 2 { // each of the two names once
		h.keeps(firstKey)
		h.keeps(nextKey)
		if err := os.WriteFile(filepath.Join(s.dir, "state", "key-place.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if a := h.do("forget"); a.Err != "" || s.entries() != 0 {
			t.Errorf("%d entries left (%s), want none", s.entries(), a.Err)
		}
		h.keeps(firstKey)
	}
}

func TestSomebodyIsThereToUnlock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		interactive bool
		before      string
		place, held string
	}{
		{"interactive", true, "", "desktop keyring", "1 entries"},
		// What comes too late does not stay: the key is in the file.
		{"nobody there", false, "", "encrypted file", "0 entries"},
		// A key is replaced when its time has come, whoever is there.
		{"not the first key", true, nextKey, "encrypted file", "1 entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSession(t).startBus()
			fake := s.fakeKeyring()
			h := s.host(keyring.Options{Interactive: tt.interactive})
			if tt.before != "" {
				h.keeps(tt.before)
			}
			fake.ask("lock")
			unlocked := make(chan struct{})
			go func() {
				defer close(unlocked)
				time.Sleep(quick + 300*time.Millisecond)
				fake.ask("unlock")
			}()
			source := h.keeps(firstKey)
			<-unlocked
			wantIn(t, source, tt.place)
			s.await(tt.held, func() bool { return strings.HasPrefix(fake.ask("count"), tt.held) })
			time.Sleep(200 * time.Millisecond) // an entry made late would be there by now
			if told := fake.ask("count"); !strings.HasPrefix(told, tt.held) {
				t.Errorf("the keyring holds %s, want %s", told, tt.held)
			}
			h.finds(firstKey)
		})
	}
}
