package keyring

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

const boundWords = "bound to this Windows user (DPAPI): keeps it out of copied backups, not from programs of this user or administrators"

// saltName is empty: Windows has a secret of its own for each user.
const saltName = ""

// binding seals for this Windows user.
type binding struct{}

func (s *Store) binding(bool) (*binding, error) { return &binding{}, nil }

func (*binding) seal(plain []byte) ([]byte, error) {
	var out windows.DataBlob
	if err := windows.CryptProtectData(blob(plain), nil, nil, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("asking Windows to encrypt: %w", err)
	}
	return taken(out), nil
}

func (*binding) unseal(sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, windows.ERROR_INVALID_DATA
	}
	var out windows.DataBlob
	if err := windows.CryptUnprotectData(blob(sealed), nil, nil, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("asking Windows to decrypt: %w", err)
	}
	return taken(out), nil
}

func blob(content []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(content)), Data: &content[0]}
}

// taken copies what Windows allotted, and gives it back.
func taken(b windows.DataBlob) []byte {
	defer windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data)))
	return bytes.Clone(unsafe.Slice(b.Data, b.Size))
}
