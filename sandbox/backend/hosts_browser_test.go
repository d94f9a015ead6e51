package backend_test

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/distributedcompute/host-agent/core/signin"
	"github.com/distributedcompute/host-agent/sandbox/backend"
)

// browser is a real one, without a window. It takes the sandbox's certificates.
func browser(t *testing.T) (do func(steps ...chromedp.Action[chromedp.Void]), text func(selector string) string) {
	t.Helper()
	var program string
	err := exec.ErrNotFound
	for _, name := range []string{"chromium", "google-chrome", "chromium-browser"} {
		if program, err = exec.LookPath(name); err == nil {
			break
		}
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs the package chromium")
		}
		t.Skip("needs the package chromium")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()), chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewContext(within(t), chromedp.WithAllocatorOptions(options...))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		stop()
	})
	do = func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			t.Fatalf("in the browser: %v", err)
		}
	}
	text = func(selector string) string {
		t.Helper()
		got, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(selector)))
		if err != nil {
			t.Fatalf("in the browser: %v", err)
		}
		return got
	}
	return do, text
}

// TestBrowser clicks through what a person sees: a password that is mistyped, the right one, consent,
// the agent's own page, and the dashboard.
func TestBrowser(t *testing.T) {
	w := startWithPeople(t, backend.Options{})
	do, text := browser(t)
	do() // it starts before the time of anything else runs
	client, err := signin.New(signin.Options{Issuer: w.people.Issuer(), ClientID: w.people.ClientID(), API: w.api(), CAPEM: w.authority.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	prompts := make(chan signin.Prompt, 1)
	var signing sync.WaitGroup
	defer signing.Wait()
	signing.Go(func() {
		host := signin.Host{InstallID: "install", Hostname: "tower", OS: "linux", Arch: "amd64", AgentVersion: "1.0.0"}
		if got, err := client.Browser(within(t), host, func(p signin.Prompt) { prompts <- p }); err != nil || got.Owner != "ada@example.com" {
			t.Errorf("the agent got %+v, %v", got, err)
		}
	})
	var prompt signin.Prompt
	select {
	case prompt = <-prompts:
	case <-time.After(10 * time.Second):
		t.Fatal("the agent shows no address")
	}
	ada := w.people.Users()[0]
	email, password := chromedp.CSS("#email"), chromedp.CSS("#password")
	do(
		chromedp.Navigate(prompt.URL),
		chromedp.WaitVisible(email),
		chromedp.SendKeys(email, ada.Email),
		chromedp.SendKeys(password, "wrong"),
		chromedp.Click(chromedp.CSS("#sign-in")),
		chromedp.WaitVisible(chromedp.CSS(".problem")),
	)
	if said := text("main"); !strings.Contains(said, "no account") || !strings.Contains(said, "sandbox") {
		t.Errorf("after a wrong password the page says %q", said)
	}
	do(
		chromedp.SendKeys(password, ada.Password.Reveal()), // the address is still there
		chromedp.Click(chromedp.CSS("#sign-in")),
		chromedp.WaitVisible(chromedp.CSS("#allow")),
	)
	if said := text("main"); !strings.Contains(said, "DistributedCompute host agent") || !strings.Contains(said, ada.Email) {
		t.Errorf("the consent page says %q", said)
	}
	do(chromedp.Click(chromedp.CSS("#allow")), chromedp.WaitVisible(chromedp.CSS(".good")))
	if said := text("main"); !strings.Contains(said, ada.Email) || !strings.Contains(said, "tower") {
		t.Errorf("the agent's page says %q", said)
	}
	signing.Wait()
	do(chromedp.Navigate(w.Dashboard()))
	if said := text("main"); !strings.Contains(said, "tower") || !strings.Contains(said, ada.Email) {
		t.Errorf("the dashboard says %q", said)
	}
}
