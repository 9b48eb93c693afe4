-- SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
--
-- Shows what MigrOS adds to RoCEv2 in Wireshark and tshark (tested with 4.4), after
-- their own dissector, which knows neither its opcodes nor NAK_STOPPED:
--
--	tshark -X lua_script:migros.lua -r capture.pcap
--
-- Put it into ~/.local/lib/wireshark/plugins to have it always. The numbers are those
-- of drivers/infiniband/sw/rxe/rxe_mig_wire.h, the rules are in docs/protocol.md.

local VERSION = 1
local OPS = {
	[0xe0] = "PAUSE",
	[0xe1] = "PROBE",
	[0xe2] = "RUNNING",
	[0xe3] = "RESUME",
	[0xe4] = "RESUME_ACK",
	[0xe5] = "MOVED",
}
local OP_ACKNOWLEDGE = 0x11	-- of RC
local SYN_NAK_STOPPED = 0x65
local BTH_BYTES, MIGETH_BYTES, ICRC_BYTES = 12, 56, 4

local migros = Proto("migros", "MigrOS, live migration of RDMA connections")
local f = {
	op = ProtoField.uint8("migros.op", "Operation", base.HEX, OPS),
	version = ProtoField.uint8("migros.version", "Version"),
	flags = ProtoField.uint8("migros.flags", "Flags", base.HEX),
	paused = ProtoField.bool("migros.flags.paused", "The sender is Paused", 8, nil, 0x01),
	tombstone = ProtoField.bool("migros.flags.tombstone", "The QP is gone", 8, nil, 0x02),
	self = ProtoField.bool("migros.flags.self", "To its own old address", 8, nil, 0x04),
	src_qpn = ProtoField.uint32("migros.src_qpn", "Source QP", base.HEX),
	epoch = ProtoField.uint32("migros.epoch", "Epoch"),
	sq_psn = ProtoField.uint32("migros.sq_psn", "First unacknowledged PSN"),
	rq_psn = ProtoField.uint32("migros.rq_psn", "Expected PSN"),
	nonce = ProtoField.uint64("migros.nonce", "Nonce", base.HEX),
	echo = ProtoField.uint64("migros.echo", "Echo", base.HEX),
	gid = ProtoField.ipv6("migros.gid", "GID"),
	token = ProtoField.uint24("migros.token", "NAK_STOPPED, token", base.HEX),
}
migros.fields = f

local wrong = {
	version = ProtoExpert.new("migros.version.unknown", "Receivers drop this version",
				  expert.group.PROTOCOL, expert.severity.WARN),
	short = ProtoExpert.new("migros.short", "Shorter than its header",
				expert.group.MALFORMED, expert.severity.ERROR),
}
migros.experts = wrong

local opcode = Field.new("infiniband.bth.opcode")
local payload = Field.new("udp.payload")

local function extension(bytes, op, pinfo, tree)
	local name = OPS[op]
	local branch = tree:add(migros, bytes(BTH_BYTES), "MigrOS " .. name)
	local eth, info

	branch:add(f.op, bytes(0, 1))
	pinfo.cols.protocol:set("MigrOS")
	if bytes:len() < BTH_BYTES + MIGETH_BYTES + ICRC_BYTES then
		branch:add_tvb_expert_info(wrong.short, bytes)
		pinfo.cols.info:set(name .. ", short")
		return
	end
	eth = bytes(BTH_BYTES, MIGETH_BYTES)
	branch:set_len(MIGETH_BYTES)
	branch:add(f.version, eth(0, 1))
	if eth(0, 1):uint() ~= VERSION then
		branch:add_tvb_expert_info(wrong.version, eth(0, 1))
		pinfo.cols.info:set(name .. ", version " .. eth(0, 1):uint())
		return
	end
	local flags = branch:add(f.flags, eth(1, 1))
	flags:add(f.paused, eth(1, 1))
	flags:add(f.tombstone, eth(1, 1))
	flags:add(f.self, eth(1, 1))
	branch:add(f.src_qpn, eth(4, 4))
	branch:add(f.epoch, eth(8, 4))
	branch:add(f.sq_psn, eth(12, 4))
	branch:add(f.rq_psn, eth(16, 4))
	branch:add(f.nonce, eth(24, 8))
	branch:add(f.echo, eth(32, 8))
	branch:add(f.gid, eth(40, 16))

	info = string.format("%s QP 0x%06x -> 0x%06x epoch %d, unacknowledged PSN %d, expected %d",
			     name, eth(4, 4):uint(), bytes(5, 3):uint(), eth(8, 4):uint(),
			     eth(12, 4):uint(), eth(16, 4):uint())
	for bit, word in ipairs({ "Paused", "tombstone", "self" }) do
		if eth(1, 1):bitfield(8 - bit, 1) == 1 then
			info = info .. ", " .. word
		end
	end
	if OPS[op] == "MOVED" then
		info = info .. ", to " .. tostring(eth(40, 16):ipv6())
	end
	pinfo.cols.info:set(info)
end

local function nak_stopped(bytes, pinfo, tree)
	local token = bytes(BTH_BYTES + 1, 3)

	tree:add(migros, bytes(BTH_BYTES, 4), "MigrOS NAK_STOPPED"):add(f.token, token)
	pinfo.cols.protocol:set("MigrOS")
	pinfo.cols.info:set(string.format("NAK_STOPPED -> QP 0x%06x PSN %d, token 0x%06x",
					  bytes(5, 3):uint(), bytes(9, 3):uint(), token:uint()))
end

function migros.dissector(_, pinfo, tree)
	local op = opcode()
	local bytes = { payload() }

	if not op or #bytes == 0 then
		return
	end
	-- That of the innermost, should there be tunnels
	bytes = bytes[#bytes].range
	if OPS[op.value] then
		extension(bytes, op.value, pinfo, tree)
	elseif op.value == OP_ACKNOWLEDGE and bytes:len() >= BTH_BYTES + 4 and
	       bytes(BTH_BYTES, 1):uint() == SYN_NAK_STOPPED then
		nak_stopped(bytes, pinfo, tree)
	end
end

-- Not of a port: the packets are InfiniBand's, which has dissected their BTH.
register_postdissector(migros)
