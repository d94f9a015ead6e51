package protocol

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
)

// backendMessage finds who reads an event of the backend; nil for one that is not known.
func backendMessage(event string) reader {
	switch event {
	case "registered":
		return readRegistered
	case "start_instance":
		return readStartInstance
	case "stop_instance":
		return readStopInstance
	case "drain_node":
		return readDrainNode
	case "resume_node":
		return func(*object) Message { return &ResumeNode{} }
	case "get_logs":
		return readGetLogs
	case "run_speedtest":
		return func(*object) Message { return &RunSpeedtest{} }
	case "earnings":
		return func(o *object) Message { earnings := readEarnings(o); return &earnings }
	case "notice":
		return readNotice
	case "set_offer_request":
		return func(o *object) Message { return &SetOfferRequest{Offer: need(o, "offer", nested(readProposal))} }
	case "status_received":
		return readStatusReceived
	}
	return nil
}

func readRegistered(o *object) Message {
	return &Registered{
		NodeID:             need(o, "node_id", nodeID()),
		HeartbeatIntervalS: getOr(o, "heartbeat_interval_s", whole(1, 60), 5),
		Relay:              getPtr(o, "relay", nested(readRelay)),
		ServerTime:         get(o, "server_time", instant()),
		Earnings:           spare(o, "earnings", nested(readEarnings)), // a day's wrong sum must not cost the node its name
	}
}

func readRelay(o *object) Relay {
	return Relay{
		Address:    need(o, "address", hostPort()),
		Token:      get(o, "token", secretText(4096)),
		TLS:        get(o, "tls", boolean()),
		ServerName: get(o, "server_name", label(253)),
		CAPEM:      get(o, "ca_pem", private(0, 64<<10)),
	}
}

func readStartInstance(o *object) Message {
	m := &StartInstance{
		RentalID:     need(o, "rental_id", rentalID()),
		Image:        need(o, "image", imageName()),
		Command:      get(o, "command", readCommand),
		EnvVars:      get(o, "env_vars", readEnv),
		GPUIndices:   get(o, "gpu_indices", distinct(list(64, whole(0, 63)))),
		RAMLimit:     need(o, "ram_limit", bytesSize()),
		CPUCores:     need(o, "cpu_cores", above(0, 1024)),
		DiskLimit:    get(o, "disk_limit", bytesSize()),
		ShmSize:      get(o, "shm_size", bytesSize()),
		PortMapping:  get(o, "port_mapping", readPorts),
		RegistryAuth: getPtr(o, "registry_auth", nested(readRegistryAuth)),
		ExpiresAt:    get(o, "expires_at", future()),
		PricePerHour: get(o, "price_per_hour", price()),
	}
	o.refuseUnknown("start_instance")
	return m
}

func readRegistryAuth(o *object) RegistryAuth {
	auth := RegistryAuth{
		Username: need(o, "username", private(0, 256)),
		Password: need(o, "password", secretText(16<<10)),
	}
	o.refuseUnknown("registry_auth")
	return auth
}

// maxTextBytes bounds what a command, or an environment, adds up to.
const maxTextBytes = 64 << 10

func readCommand(raw json.RawMessage) ([]string, *fault) {
	args, f := list(128, private(0, maxTextBytes))(raw)
	total := 0
	for _, arg := range args {
		total += len(arg)
	}
	if total > maxTextBytes {
		return nil, &fault{InvalidRequest, "", fmt.Sprintf("takes at most %d bytes together, got %d", maxTextBytes, total)}
	}
	return args, f
}

var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readEnv reads a renter's environment. Its faults name variables and never show a value.
func readEnv(raw json.RawMessage) (map[string]string, *fault) {
	const maxVars = 256
	o, f := readObject(raw)
	if f != nil {
		return nil, f
	}
	if len(o.names) > maxVars {
		return nil, &fault{InvalidRequest, "", fmt.Sprintf("takes at most %d variables, got %d", maxVars, len(o.names))}
	}
	var env map[string]string
	total := 0
	for _, name := range o.names {
		if !envPattern.MatchString(name) {
			return nil, &fault{InvalidRequest, short(name), "takes letters, digits and '_' in a name, not starting with a digit"}
		}
		value := need(o, name, private(0, maxTextBytes))
		if o.fault != nil {
			return nil, o.fault
		}
		if total += len(name) + len(value); total > maxTextBytes {
			return nil, &fault{InvalidRequest, "", "takes at most " + strconv.Itoa(maxTextBytes) + " bytes of names and values together"}
		}
		if env == nil {
			env = make(map[string]string, len(o.names))
		}
		env[name] = value
	}
	return env, nil
}

func readStopInstance(o *object) Message {
	m := &StopInstance{
		RentalID:    get(o, "rental_id", rentalID()),
		ContainerID: get(o, "container_id", containerID()),
	}
	graceful, grace := getOr(o, "graceful", boolean(), true), getOr(o, "grace_s", whole(0, 600), 30)
	m.Graceful, m.GraceS = &graceful, &grace
	if m.RentalID == "" && m.ContainerID == "" {
		o.fail(&fault{InvalidRequest, "rental_id", "takes the rental to stop, unless container_id names it; got neither"})
	}
	return m
}

func readDrainNode(o *object) Message {
	return &DrainNode{
		Reason:        get(o, "reason", label(256)),
		StopInstances: get(o, "stop_instances", boolean()),
		Deadline:      get(o, "deadline", future()),
	}
}

func readGetLogs(o *object) Message {
	return &GetLogs{
		RentalID: need(o, "rental_id", rentalID()),
		Tail:     getOr(o, "tail", whole(1, 5000), 200),
		Since:    get(o, "since", future()),
	}
}

func readEarnings(o *object) Earnings {
	return Earnings{
		Currency:     get(o, "currency", currency()),
		RatePerHour:  get(o, "rate_per_hour", amount()),
		Today:        get(o, "today", amount()),
		Month:        get(o, "month", amount()),
		Total:        get(o, "total", amount()),
		Unpaid:       get(o, "unpaid", amount()),
		NextPayoutAt: getPtr(o, "next_payout_at", instant()),
		History: get(o, "history", list(1000, nested(func(o *object) DayAmount {
			return DayAmount{Day: need(o, "day", day()), Amount: need(o, "amount", amount())}
		}))),
	}
}

func readNotice(o *object) Message {
	return &Notice{
		Title:    get(o, "title", label(200)),
		Body:     get(o, "body", prose(4000)),
		URL:      get(o, "url", webAddress()),
		Severity: get(o, "severity", label(32)),
	}
}

// readProposal keeps no GPUs, an empty list, apart from nothing said of GPUs.
func readProposal(o *object) Offer {
	proposal := readOffer(o)
	if _, said := o.take("gpu_indices"); said {
		proposal.GPUIndices = listed(proposal.GPUIndices)
	}
	return proposal
}

func readOffer(o *object) Offer {
	return Offer{
		GPUIndices:         get(o, "gpu_indices", distinct(list(64, whole(0, 63)))),
		CPUCores:           get(o, "cpu_cores", number(0, 1024)),
		RAMMB:              get(o, "ram_mb", whole[int64](0, 1<<30)),
		DiskGB:             get(o, "disk_gb", whole[int64](0, 1<<30)),
		MinPricePerGPUHour: get(o, "min_price_per_gpu_hour", price()),
		Currency:           get(o, "currency", currency()),
	}
}

func readStatusReceived(o *object) Message {
	return &StatusReceived{
		RentalID: need(o, "rental_id", rentalID()),
		Sequence: need(o, "sequence", whole[int64](0, maxInteger)),
	}
}
