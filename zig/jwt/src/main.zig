//! plue-jwt: signs, verifies and shows tokens on the command line. The secret never is an
//! argument, because arguments are open to every user of the machine.

const std = @import("std");
const base64url = @import("base64url.zig");
const duration = @import("duration.zig");
const jwt = @import("jwt.zig");
const secret_rules = @import("secret.zig");
const sha256 = @import("sha256.zig");
const config = @import("config");

const usage =
    \\usage: plue-jwt COMMAND
    \\
    \\HS256 JSON Web Tokens: sign, verify, look inside, make a secret.
    \\
    \\  sign CLAIMS     sign a JSON object, print the token
    \\      --expires-in TIME   set iat to now and exp to this much later, for example 7d,
    \\                          '2 hours' or 30m; without it the claims are signed as they are
    \\      --kid ID            name the key in the token's header
    \\  verify TOKEN    print the claims of a valid token
    \\      --audience AUD      what the claim aud must be or contain
    \\      --issuer ISS        what the claim iss must be
    \\      --subject SUB       what the claim sub must be
    \\      --leeway TIME       tolerance for exp, nbf and iat, for example 30s
    \\  inspect TOKEN   print header and claims WITHOUT verifying them
    \\  secret          print a new random secret
    \\      --bytes N           of randomness, written as base64url; at least 32, the default
    \\
    \\CLAIMS or TOKEN may be -, which reads standard input. --help prints this text, --version the
    \\version.
    \\
    \\sign and verify take the secret from the file named by --secret-file FILE (one line feed at
    \\its end does not count), else from the environment variable JWT_SECRET.
    \\
    \\examples:
    \\  export JWT_SECRET="$(plue-jwt secret)"
    \\  plue-jwt sign '{"sub":"ann"}' --expires-in "2 hours" > token
    \\  plue-jwt verify - < token
    \\  plue-jwt inspect "$(cat token)"
    \\
    \\exit status: 0 done or valid; 1 the token, claims or secret is refused; 2 wrong usage
    \\
;

const max_input_bytes = jwt.max_token_bytes;

/// `refuse` and `misuse` have said why.
const Failure = error{ Refused, Misused };
const Error = Failure || error{ OutOfMemory, WriteFailed };

pub fn main() u8 {
    var arena: std.heap.ArenaAllocator = .init(std.heap.page_allocator);
    defer arena.deinit();
    var buffer: [4096]u8 = undefined;
    var writer = std.fs.File.stdout().writerStreaming(&buffer);
    const cli: Cli = .{ .allocator = arena.allocator(), .out = &writer.interface };
    cli.run() catch |err| switch (err) {
        error.Refused => return 1,
        error.Misused => return 2,
        error.OutOfMemory => return complain(1, "out of memory", .{}),
        error.WriteFailed => return complain(1, "cannot write to standard output", .{}),
    };
    return 0;
}

fn complain(status: u8, comptime format: []const u8, arguments: anytype) u8 {
    std.debug.print("plue-jwt: " ++ format ++ "\n", arguments);
    return status;
}

fn refuse(comptime format: []const u8, arguments: anytype) Failure {
    _ = complain(1, format, arguments);
    return error.Refused;
}

fn misuse(comptime format: []const u8, arguments: anytype) Failure {
    _ = complain(2, format ++ "; see plue-jwt --help", arguments);
    return error.Misused;
}

const Command = enum { sign, verify, inspect, secret };

const Options = struct {
    command: Command,
    operand: ?[]const u8 = null,
    @"expires-in": ?[]const u8 = null,
    kid: ?[]const u8 = null,
    audience: ?[]const u8 = null,
    issuer: ?[]const u8 = null,
    subject: ?[]const u8 = null,
    leeway: ?[]const u8 = null,
    bytes: ?[]const u8 = null,
    @"secret-file": ?[]const u8 = null,

    fn allowed(command: Command) []const []const u8 {
        return switch (command) {
            .sign => &.{ "expires-in", "kid", "secret-file" },
            .verify => &.{ "audience", "issuer", "subject", "leeway", "secret-file" },
            .inspect => &.{},
            .secret => &.{"bytes"},
        };
    }

    /// Takes the words after the command.
    fn parse(command: Command, words: []const []const u8) Failure!Options {
        var options: Options = .{ .command = command };
        var literal = false;
        var i: usize = 0;
        while (i < words.len) : (i += 1) {
            const word = words[i];
            if (literal or word.len < 2 or word[0] != '-') {
                if (options.operand != null) return misuse("'{s}' is one too many", .{word});
                options.operand = word;
            } else if (std.mem.eql(u8, word, "--")) {
                literal = true;
            } else {
                const equals = std.mem.indexOfScalar(u8, word, '=') orelse word.len;
                const value = if (equals < word.len) word[equals + 1 ..] else value: {
                    i += 1;
                    if (i == words.len) return misuse("{s} needs a value", .{word});
                    break :value words[i];
                };
                if (!options.set(word[0..equals], value)) {
                    return misuse("{s} has no option {s}", .{ @tagName(command), word[0..equals] });
                }
            }
        }
        const wants_operand = command != .secret;
        if (wants_operand and options.operand == null) {
            return misuse("{s} needs an argument", .{@tagName(command)});
        }
        if (!wants_operand and options.operand != null) {
            return misuse("{s} takes no argument", .{@tagName(command)});
        }
        return options;
    }

    fn set(options: *Options, word: []const u8, value: []const u8) bool {
        if (!std.mem.startsWith(u8, word, "--")) return false;
        const name = word[2..];
        for (allowed(options.command)) |known| {
            if (std.mem.eql(u8, name, known)) break;
        } else return false;
        inline for (@typeInfo(Options).@"struct".fields) |field| {
            if (field.type == ?[]const u8 and std.mem.eql(u8, name, field.name)) {
                @field(options, field.name) = value;
                return true;
            }
        }
        return false;
    }
};

const Cli = struct {
    allocator: std.mem.Allocator,
    out: *std.Io.Writer,

    fn run(cli: Cli) Error!void {
        const words = std.process.argsAlloc(cli.allocator) catch return error.OutOfMemory;
        if (words.len < 2) return misuse("a command is missing", .{});
        for (words[1..]) |word| {
            if (std.mem.eql(u8, word, "--")) break;
            if (std.mem.eql(u8, word, "--help") or std.mem.eql(u8, word, "-h")) {
                try cli.out.writeAll(usage);
                return cli.out.flush();
            }
        }
        if (std.mem.eql(u8, words[1], "--version")) {
            try cli.out.print("plue-jwt {s}\n", .{config.version});
            return cli.out.flush();
        }
        const command = std.meta.stringToEnum(Command, words[1]) orelse
            return misuse("'{s}' is no command", .{words[1]});
        const options: Options = try .parse(command, words[2..]);
        switch (command) {
            .sign => try cli.sign(options),
            .verify => try cli.verify(options),
            .inspect => try cli.inspect(options),
            .secret => try cli.secret(options),
        }
        try cli.out.flush();
    }

    fn sign(cli: Cli, options: Options) Error!void {
        var claims = try cli.text(options.operand.?);
        if (options.@"expires-in") |span| claims = try cli.expiring(claims, try seconds(span));
        var key = try cli.readKey(options);
        defer key.wipe();
        const room = try cli.allocator.alloc(u8, jwt.default_max_token_bytes);
        const token = if (options.kid) |kid| token: {
            const header = try std.json.Stringify.valueAlloc(cli.allocator, .{
                .alg = "HS256",
                .kid = kid,
                .typ = "JWT",
            }, .{});
            // signJws does not read the claims: let sign do that first.
            _ = jwt.sign(room, claims, &key) catch |err| return refuseToken(err);
            break :token jwt.signJws(room, header, claims, &key);
        } else jwt.sign(room, claims, &key);
        try cli.out.print("{s}\n", .{token catch |err| return refuseToken(err)});
    }

    /// The claims with iat and exp set.
    fn expiring(cli: Cli, claims: []const u8, span_s: i64) Error![]const u8 {
        const not_an_object = "the claims are not one JSON object";
        // Numbers stay the text that they are: no digit may get lost.
        var value = std.json.parseFromSliceLeaky(std.json.Value, cli.allocator, claims, .{
            .parse_numbers = false,
        }) catch return refuse(not_an_object, .{});
        if (value != .object) return refuse(not_an_object, .{});
        const now_s = std.time.timestamp();
        try value.object.put("iat", .{ .integer = now_s });
        try value.object.put("exp", .{ .integer = now_s +| span_s });
        return std.json.Stringify.valueAlloc(cli.allocator, value, .{});
    }

    fn verify(cli: Cli, options: Options) Error!void {
        const token = try cli.text(options.operand.?);
        const leeway_s = if (options.leeway) |span| try seconds(span) else 0;
        if (leeway_s < 0) return misuse("--leeway cannot be negative", .{});
        var key = try cli.readKey(options);
        defer key.wipe();
        const room = try cli.allocator.alloc(u8, token.len);
        var matched: ?usize = null;
        const payload = jwt.verify(room, token, (&key)[0..1], .{
            .now_s = std.time.timestamp(),
            .leeway_s = leeway_s,
        }, &matched) catch |err| return refuseToken(err);
        try cli.checkNames(payload, options);
        try cli.printText(payload);
        try cli.out.writeByte('\n');
    }

    fn checkNames(cli: Cli, payload: []const u8, options: Options) Error!void {
        const value = std.json.parseFromSliceLeaky(std.json.Value, cli.allocator, payload, .{
            .duplicate_field_behavior = .use_last,
            .parse_numbers = false,
        }) catch return refuse("the claims cannot be read", .{});
        const claims = value.object; // verify accepts nothing else
        try expectClaim("iss", claims.get("iss"), options.issuer);
        try expectClaim("sub", claims.get("sub"), options.subject);
        // As in PyJWT, a token for somebody is not for somebody who does not say who it is.
        const audience = claims.get("aud") orelse {
            if (options.audience != null) return refuse("the token has no claim aud", .{});
            return;
        };
        const wanted = options.audience orelse
            return refuse("the token has a claim aud: say with --audience who you are", .{});
        const members = if (audience == .array) audience.array.items else &.{audience};
        for (members) |member| {
            if (member == .string and std.mem.eql(u8, member.string, wanted)) return;
        }
        return refuse("the token's claim aud does not name '{s}'", .{wanted});
    }

    fn expectClaim(name: []const u8, found: ?std.json.Value, expected: ?[]const u8) Failure!void {
        const wanted = expected orelse return;
        const value = found orelse return refuse("the token has no claim {s}", .{name});
        if (value == .string and std.mem.eql(u8, value.string, wanted)) return;
        return refuse("the token's claim {s} is not '{s}'", .{ name, wanted });
    }

    fn inspect(cli: Cli, options: Options) Error!void {
        const token = try cli.text(options.operand.?);
        const room = try cli.allocator.alloc(u8, 2 * token.len);
        const header = jwt.decodeUnverified(room[0..token.len], token, .header) catch |err|
            return refuseToken(err);
        const payload = jwt.decodeUnverified(room[token.len..], token, .payload) catch |err|
            return refuseToken(err);
        std.debug.print("UNVERIFIED: anybody can write such a token.\n", .{});
        try cli.out.writeAll("header  ");
        try cli.printText(header);
        try cli.out.writeAll("\npayload ");
        if (std.json.validate(cli.allocator, payload) catch false) {
            try cli.printText(payload);
        } else {
            try cli.out.print("(not JSON) \"{f}\"", .{std.ascii.hexEscape(payload, .lower)});
        }
        try cli.out.writeByte('\n');
    }

    /// Text from a token may want to move the cursor or worse; what controls a terminal is shown
    /// as JSON escapes. Below space only the white space of JSON can occur, where a carriage return
    /// is as good as a space.
    fn printText(cli: Cli, bytes: []const u8) Error!void {
        for (bytes, 0..) |byte, i| {
            const after_c2 = i > 0 and bytes[i - 1] == 0xc2 and byte < 0xa0;
            const before_control = byte == 0xc2 and i + 1 < bytes.len and bytes[i + 1] < 0xa0;
            if (before_control) continue;
            if (byte == 0x7f or after_c2) {
                try cli.out.print("\\u{x:0>4}", .{byte});
            } else if (byte == '\r') {
                try cli.out.writeByte(' ');
            } else {
                try cli.out.writeByte(byte);
            }
        }
    }

    fn secret(cli: Cli, options: Options) Error!void {
        const digits = options.bytes orelse "32";
        const count = std.fmt.parseInt(u16, digits, 10) catch
            return misuse("--bytes must be a number up to 65535, not '{s}'", .{digits});
        if (count < secret_rules.recommended_bytes) {
            return refuse("a secret needs 32 bytes or more (RFC 7518, 3.2)", .{});
        }
        const bytes = try cli.allocator.alloc(u8, count);
        std.crypto.random.bytes(bytes);
        const encoded = try cli.allocator.alloc(u8, base64url.encodedLength(count));
        base64url.encode(encoded, bytes);
        try cli.out.print("{s}\n", .{encoded});
    }

    fn readKey(cli: Cli, options: Options) Error!jwt.Key {
        const bytes = if (options.@"secret-file") |path|
            try cli.readSecretFile(path)
        else
            std.posix.getenv("JWT_SECRET") orelse
                return refuse("no secret: set JWT_SECRET or give --secret-file", .{});
        secret_rules.check(bytes) catch |err| return switch (err) {
            error.EmptySecret => refuse("the secret is empty", .{}),
            error.SecretTooLarge => refuse("the secret is larger than 1 MiB", .{}),
            error.AsymmetricKey => refuse("the secret is a PEM, DER, OpenSSH or JWK key, which " ++
                "cannot serve as an HMAC secret: make one with plue-jwt secret", .{}),
        };
        if (bytes.len < secret_rules.recommended_bytes) {
            _ = complain(0, "warning: the secret has {d} bytes, HS256 needs 32 or more " ++
                "(RFC 7518, 3.2)", .{bytes.len});
        }
        return .init(bytes, sha256.Path.detect());
    }

    fn readSecretFile(cli: Cli, path: []const u8) Error![]const u8 {
        const limit = secret_rules.max_bytes + 2; // a line end may follow
        const bytes = std.fs.cwd().readFileAlloc(cli.allocator, path, limit) catch |err|
            return refuse("cannot read the secret from '{s}': {s}", .{ path, @errorName(err) });
        if (!std.mem.endsWith(u8, bytes, "\n")) return bytes;
        const line = bytes[0 .. bytes.len - 1];
        return if (std.mem.endsWith(u8, line, "\r")) line[0 .. line.len - 1] else line;
    }

    fn text(cli: Cli, operand: []const u8) Error![]const u8 {
        if (!std.mem.eql(u8, operand, "-")) return operand;
        const stdin = std.fs.File.stdin();
        const bytes = stdin.readToEndAlloc(cli.allocator, max_input_bytes) catch |err|
            return refuse("cannot read standard input: {s}", .{@errorName(err)});
        return std.mem.trimRight(u8, bytes, "\r\n");
    }
};

fn seconds(span: []const u8) Failure!i64 {
    return duration.parse(span) catch
        refuse("not a span of time: '{s}'; expected for example 7d or '2 hours'", .{span});
}

fn refuseToken(err: (jwt.SignError || jwt.VerifyError)) Failure {
    return refuse("{s}", .{switch (err) {
        error.TooLarge => "the token is or would be larger than 64 KiB",
        error.BufferTooSmall => "the token with this header would be larger than 64 KiB",
        error.Segments => "not a token: it needs three parts separated by two dots",
        error.HeaderEncoding => "the header is not base64url",
        error.HeaderJson => "the header is not one JSON object",
        error.HeaderDuplicate => "the header says something twice",
        error.Algorithm => "the algorithm is not HS256",
        error.Crit => "the header asks for an extension (crit), and none is supported",
        error.B64 => "the header asks for an unencoded payload (b64), which is not supported",
        error.Kid => "the key id (kid) is not a string",
        error.Typ => "the type (typ) is not a string",
        error.SignatureEncoding => "the signature is not base64url",
        error.Signature => "the signature does not match: another secret, or a forged token",
        error.PayloadEncoding => "the payload is not base64url",
        error.PayloadJson => "the claims are not one JSON object",
        error.PayloadDepth => "the claims are nested too deep",
        error.DuplicateClaim => "a registered claim is given twice",
        error.ExpType => "the claim exp is not a number",
        error.NbfType => "the claim nbf is not a number",
        error.IatType => "the claim iat is not a number",
        error.Expired => "the token has expired",
        error.NotYetValid => "the token is not valid yet (nbf)",
        error.IssuedInFuture => "the token is issued in the future (iat): check the clocks",
    }});
}
