package hardware

import "fmt"

// nvmlCode is what a function of the library returns; every one but nvmlSuccess is an error.
type nvmlCode uint32

const (
	nvmlSuccess          nvmlCode = 0
	nvmlUninitialized    nvmlCode = 1
	nvmlInvalidArgument  nvmlCode = 2
	nvmlNoPermission     nvmlCode = 4
	nvmlNotFound         nvmlCode = 6
	nvmlTooSmall         nvmlCode = 7
	nvmlDriverNotLoaded  nvmlCode = 9
	nvmlLibraryNotFound  nvmlCode = 12
	nvmlFunctionNotFound nvmlCode = 13
	nvmlGPULost          nvmlCode = 15
	nvmlResetRequired    nvmlCode = 16
	nvmlVersionMismatch  nvmlCode = 18
)

// Error implements error.
func (c nvmlCode) Error() string { return fmt.Sprintf("NVML error %d", uint32(c)) }
