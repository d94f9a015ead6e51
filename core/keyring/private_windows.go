package keyring

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

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

func checkPrivate(f *os.File) error {
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("reading the key file's access list: %w", err)
	}
	acl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("reading the key file's access list: %w", err)
	}
	trusted, err := trustedSIDs()
	if err != nil {
		return err
	}
	if acl == nil || !onlyFor(acl, trusted) {
		return fmt.Errorf(`key file %s can be read by other users; run: icacls "%s" /inheritance:r /grant:r "%%USERNAME%%:F"`, f.Name(), f.Name())
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

func onlyFor(acl *windows.ACL, trusted []*windows.SID) bool {
	for i := range uint32(acl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if windows.GetAce(acl, i, &ace) != nil {
			return false
		}
		if ace.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE || ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0 {
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
