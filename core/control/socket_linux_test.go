package control_test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOtherUsersAreTurnedAway opens every mode on the way, so that only the kernel's word about
// the caller is left.
func TestOtherUsersAreTurnedAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user takes root")
	}
	dir, _ := open(t, &fakeHost{})
	socket := filepath.Join(dir, "control.sock")
	for path, mode := range map[string]os.FileMode{socket: 0o666, dir: 0o755, filepath.Dir(dir): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread that became another user ends with this goroutine
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			got <- "becoming another user: " + errno.Error()
			return
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			got <- "dialling: " + err.Error()
			return
		}
		defer conn.Close()
		io.WriteString(conn, "GET /v1/agent HTTP/1.1\r\nHost: distributed-agent\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		got <- string(answer)
	}()
	if answer := <-got; answer != "" {
		t.Errorf("another user got %q", answer)
	}
}
