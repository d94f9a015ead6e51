package keyring_test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/godbus/dbus/v5"
)

// fakeKeyring is a Secret Service of our own making, as far as the library asks it, for what the real one does on a
// desktop alone: it asks for its password with a window that stays open. Its prompts are answered when the test
// says so, or never.
type fakeKeyring struct {
	conn *dbus.Conn

	mu      sync.Mutex
	locked  bool
	waiting []dbus.ObjectPath // prompts
	prompts int
	items   map[dbus.ObjectPath]fakeItem
}

type fakeItem struct {
	attributes map[string]string
	value      []byte
}

type fakeSecret struct {
	Session           dbus.ObjectPath
	Parameters, Value []byte
	ContentType       string
}

const (
	secretsPath    = dbus.ObjectPath("/org/freedesktop/secrets")
	collectionPath = secretsPath + "/collection/login"
	none           = dbus.ObjectPath("/")
)

func playFakeKeyring() {
	conn, err := dbus.ConnectSessionBus()
	if err != nil {
		panic(err)
	}
	f := &fakeKeyring{conn: conn, items: map[dbus.ObjectPath]fakeItem{}}
	for name, path := range map[string]dbus.ObjectPath{
		"org.freedesktop.Secret.Service":    secretsPath,
		"org.freedesktop.DBus.Properties":   secretsPath,
		"org.freedesktop.Secret.Collection": collectionPath,
		"org.freedesktop.Secret.Session":    secretsPath + "/session/s",
	} {
		if err := conn.Export(f, path, name); err != nil {
			panic(err)
		}
	}
	if _, err := conn.RequestName("org.freedesktop.secrets", dbus.NameFlagDoNotQueue); err != nil {
		panic(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "lock":
			f.set(true)
		case "unlock":
			f.set(false)
		}
		f.mu.Lock()
		fmt.Println(len(f.items), "entries,", f.prompts, "prompts")
		f.mu.Unlock()
	}
}

func (f *fakeKeyring) set(locked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locked = locked
	if locked {
		return
	}
	for _, prompt := range f.waiting {
		if err := f.conn.Emit(prompt, "org.freedesktop.Secret.Prompt.Completed", false, dbus.MakeVariant([]dbus.ObjectPath{collectionPath})); err != nil {
			panic(err)
		}
	}
	f.waiting = nil
}

func (f *fakeKeyring) Get(_, _ string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant([]dbus.ObjectPath{collectionPath}), nil
}

func (f *fakeKeyring) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), secretsPath + "/session/s", nil
}

func (f *fakeKeyring) Close() *dbus.Error { return nil }

func (f *fakeKeyring) Unlock(what []dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.locked {
		return what, none, nil
	}
	f.prompts++
	prompt := dbus.ObjectPath(fmt.Sprintf("%s/prompt/%d", secretsPath, f.prompts))
	if err := f.conn.Export(f, prompt, "org.freedesktop.Secret.Prompt"); err != nil {
		panic(err)
	}
	return nil, prompt, nil
}

func (f *fakeKeyring) Prompt(msg dbus.Message, _ string) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath))
	return nil
}

func (f *fakeKeyring) SearchItems(attributes map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := []dbus.ObjectPath{}
	for path, item := range f.items {
		if maps.Equal(item.attributes, attributes) {
			found = append(found, path)
		}
	}
	return found, nil
}

func (f *fakeKeyring) CreateItem(properties map[string]dbus.Variant, s fakeSecret, _ bool) (item, prompt dbus.ObjectPath, failed *dbus.Error) {
	attributes := properties["org.freedesktop.Secret.Item.Attributes"].Value().(map[string]string)
	if old, _ := f.SearchItems(attributes); len(old) == 1 {
		item = old[0]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if item == "" {
		item = dbus.ObjectPath(fmt.Sprintf("%s/%d", collectionPath, len(f.items)+1))
	}
	f.items[item] = fakeItem{attributes, s.Value}
	if err := f.conn.Export(f, item, "org.freedesktop.Secret.Item"); err != nil {
		panic(err)
	}
	return item, none, nil
}

func (f *fakeKeyring) GetSecret(msg dbus.Message, session dbus.ObjectPath) (fakeSecret, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	item := f.items[msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)]
	return fakeSecret{Session: session, Parameters: []byte{}, Value: item.value, ContentType: "text/plain"}, nil
}

func (f *fakeKeyring) Delete(msg dbus.Message) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.items, msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath))
	return none, nil
}

// fakeKeyring starts the stand-in, unlocked.
func (s *session) fakeKeyring() *actor {
	s.t.Helper()
	fake := s.actor("fake keyring")
	s.await("the stand-in of a keyring", s.provided)
	return fake
}
