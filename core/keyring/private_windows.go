package keyring

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// checkFolder refuses a folder in which a new file could be read by other users.
func checkFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening the state directory: %w", err)
	}
	defer f.Close()
	return checkAccess(f, "state directory", "(OI)(CI)F")
}

// openPrivate opens a file that only this user, the system and administrators can read.
func openPrivate(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is a link or no regular file; name the file itself", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the key file: %w", err)
	}
	if err := checkPrivate(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkPrivate(f *os.File) error { return checkAccess(f, "key file", "F") }

// checkAccess tells what is at fault with what other users may do with f, or with what is made in it; rights are those
// that this user needs, as icacls writes them.
func checkAccess(f *os.File, what, rights string) error {
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("reading the access list of the %s: %w", what, err)
	}
	acl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("reading the access list of the %s: %w", what, err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("reading the owner of the %s: %w", what, err)
	}
	trusted, err := trustedSIDs()
	if err != nil {
		return err
	}
	if !among(owner, trusted) { // an owner can change the list
		return fmt.Errorf(`%s %s belongs to another user; run as an administrator: icacls "%s" /setowner "*%s"`, what, f.Name(), f.Name(), trusted[0])
	}
	if acl == nil || !onlyFor(acl, trusted) {
		return fmt.Errorf(`%s %s can be read by other users; run: icacls "%s" /inheritance:r /grant:r "*%s:%s"`, what, f.Name(), f.Name(), trusted[0], rights)
	}
	return nil
}

// trustedSIDs are this user, and those no file can be kept from.
func trustedSIDs() ([]*windows.SID, error) {
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("finding out who runs the agent: %w", err)
	}
	system, err := windows.CreateWellKnownSid(windows.WinLocalSystemSid)
	if err != nil {
		return nil, fmt.Errorf("naming the local system: %w", err)
	}
	administrators, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return nil, fmt.Errorf("naming the administrators: %w", err)
	}
	return []*windows.SID{me.User.Sid, system, administrators}, nil
}

// onlyFor reports whether the list admits nobody else, be it to what has the list or to what inherits it.
func onlyFor(acl *windows.ACL, trusted []*windows.SID) bool {
	for i := range uint32(acl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if windows.GetAce(acl, i, &ace) != nil {
			return false
		}
		if ace.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE {
			continue
		}
		if ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE || !among((*windows.SID)(unsafe.Pointer(&ace.SidStart)), trusted) {
			return false
		}
	}
	return true
}

func among(sid *windows.SID, trusted []*windows.SID) bool {
	for _, t := range trusted {
		if sid.Equals(t) {
			return true
		}
	}
	return false
}
