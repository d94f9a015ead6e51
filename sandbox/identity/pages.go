package identity

import (
	"bytes"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

//go:embed pages.html
var pagesHTML string

// page is what a page shows; each uses what it needs.
type page struct {
	Title       string
	Application string
	Request     string // id of the request
	Email       string
	Code        string // of a device
	From        string // who asked for that code
	Enrols      bool   // hosts may be enrolled afterwards
	Problem     string
}

var (
	errAnswered = errors.New("answered already")
	errNobody   = errors.New("nobody has signed in")
)

const (
	expired  = "This sign-in is not known here, or took more than 10 minutes. Start it again on the host."
	answered = "This sign-in has been answered already. Start another one on the host if you need to."
)

func (p *Provider) show(w http.ResponseWriter, status int, name string, v page) {
	v.Application = application
	var html bytes.Buffer
	if err := template.Must(template.New("").Parse(pagesHTML)).ExecuteTemplate(&html, name, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	// Consent ends in a redirect to the host's agent, which form-action would stop elsewhere.
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' http://127.0.0.1:*")
	w.WriteHeader(status)
	_, _ = html.WriteTo(w)
}

// problem is the end of the way for a person: the application hears nothing of it.
func (p *Provider) problem(w http.ResponseWriter, status int, sentence string) {
	p.options.Log.Info("showed an error page", "problem", sentence)
	p.show(w, status, "problem", page{Title: "This did not work", Problem: sentence})
}

func (p *Provider) signInPage(w http.ResponseWriter, r *http.Request) {
	found, err := p.store.change(withID(r.FormValue("request")), unanswered)
	if err != nil {
		p.gone(w, err)
		return
	}
	p.show(w, http.StatusOK, "sign-in", page{Title: "Sign in", Request: found.id, Email: found.asked.LoginHint})
}

func (p *Provider) signIn(w http.ResponseWriter, r *http.Request) {
	id, email := r.PostFormValue("request"), r.PostFormValue("email")
	i := slices.IndexFunc(p.users, func(u User) bool { return u.Email == email })
	right := i >= 0 && same(p.users[i].Password.Reveal(), r.PostFormValue("password"))
	_, err := p.store.change(withID(id), func(r *request) error {
		if err := unanswered(r); err != nil || !right {
			return err
		}
		r.user, r.signedIn = p.users[i], time.Now()
		return nil
	})
	switch {
	case err != nil:
		p.gone(w, err)
	case !right:
		p.show(w, http.StatusUnprocessableEntity, "sign-in", page{
			Title: "Sign in", Request: id, Email: email,
			Problem: "There is no account with this e-mail address and password.",
		})
	default:
		http.Redirect(w, r, "/consent?request="+url.QueryEscape(id), http.StatusSeeOther)
	}
}

// unanswered lets those requests pass that nobody has allowed or denied.
func unanswered(r *request) error {
	if r.allowed || r.denied {
		return errAnswered
	}
	return nil
}

// decidable lets those requests pass that somebody may allow or deny.
func decidable(r *request) error {
	if r.user.ID == "" {
		return errNobody
	}
	return unanswered(r)
}

// gone tells a person why there is nothing to do.
func (p *Provider) gone(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, errAnswered):
		p.problem(w, http.StatusConflict, answered)
	case errors.Is(err, errNobody):
		p.problem(w, http.StatusForbidden, "Sign in first.")
	default:
		p.problem(w, http.StatusNotFound, expired)
	}
}

func (p *Provider) consentPage(w http.ResponseWriter, r *http.Request) {
	found, err := p.store.change(withID(r.FormValue("request")), decidable)
	if err != nil {
		p.gone(w, err)
		return
	}
	p.show(w, http.StatusOK, "consent", page{
		Title: "Allow access?", Request: found.id, Email: found.user.Email,
		Code: found.userCode, From: found.from, Enrols: slices.Contains(found.asked.Scopes, EnrolScope),
	})
}

func (p *Provider) consent(w http.ResponseWriter, r *http.Request) {
	decision := r.PostFormValue("decision")
	if decision != "allow" && decision != "deny" {
		p.problem(w, http.StatusBadRequest, "Answer with Allow or Deny.")
		return
	}
	found, err := p.store.change(withID(r.PostFormValue("request")), func(r *request) error {
		err := decidable(r)
		if err == nil {
			r.allowed, r.denied = decision == "allow", decision == "deny"
		}
		return err
	})
	if err != nil {
		p.gone(w, err)
		return
	}
	p.options.Log.Info("somebody has decided", "decision", decision, "user", found.user.Email)
	switch {
	case found.userCode != "":
		title := "Denied"
		if found.allowed {
			title = "Allowed"
		}
		p.show(w, http.StatusOK, "device-done", page{Title: title})
	case found.allowed:
		http.Redirect(w, r, p.issuer+authorizePath+"/callback?id="+url.QueryEscape(found.id), http.StatusSeeOther)
	default:
		redirect, _ := url.Parse(found.asked.RedirectURI) // was parsed when it was asked for
		sendBack(w, r, redirect, found.asked.State, oidc.ErrAccessDenied().WithDescription("The user denied the request."))
	}
}

func (p *Provider) devicePage(w http.ResponseWriter, r *http.Request) {
	p.show(w, http.StatusOK, "device", page{Title: "Connect a host", Code: r.FormValue("user_code")})
}

func (p *Provider) enterDeviceCode(w http.ResponseWriter, r *http.Request) {
	typed := r.PostFormValue("user_code")
	found, err := p.store.change(withUserCode(typed), unanswered)
	if err != nil {
		p.show(w, http.StatusUnprocessableEntity, "device", page{
			Title: "Connect a host", Code: typed,
			Problem: "This code is not known here, was used, or has expired. Compare it with the one that the host shows.",
		})
		return
	}
	http.Redirect(w, r, "/sign-in?request="+url.QueryEscape(found.id), http.StatusSeeOther)
}
