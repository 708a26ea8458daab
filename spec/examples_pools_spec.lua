-- The programs of scripts/examples that let pools work.
-- SPDX-License-Identifier: MIT

local helper = require "spec.helper"
local examples = require "spec.support.examples"

it("example run_in_executor runs in each kind of pool", function() -- row: example.run_in_executor
  local sum = 0
  for i = 0, 999999 do sum = sum + i * i end
  assert.equal(("default thread pool\t100\ncustom thread pool\t100\ncustom process pool\t%d\n"
    .. "custom interpreter pool\t%d\n"):format(sum, sum), examples.output_of("run_in_executor"))
end)

describe("example parallel_checksum", function()
  -- The text 123456789 has the CRC-32 that all descriptions of it give.
  local function with_files(body)
    local paths = {}
    for i, text in ipairs { "123456789", "", ("x"):rep(100000) } do paths[i] = helper.write_file(text) end
    local ok, e = pcall(body, paths)
    for _, path in ipairs(paths) do os.remove(path) end
    if not ok then error(e, 0) end
  end

  for _, flag in ipairs { "--threads", "--processes" } do
    it("gives each file's, in order, " .. flag, function()
      with_files(function(paths)
        local expected = ("cbf43926 9 %s\n00000000 0 %s\nfe071171 100000 %s\n"):format(table.unpack(paths))
        assert.equal(expected, examples.output_of("parallel_checksum", { args = { flag, table.unpack(paths) } }))
      end)
    end)

    it("tells of a file that can't be read, " .. flag, function()
      with_files(function(paths)
        local args = { flag, "--workers", "2", "/no/such/file", paths[1] }
        local result = examples.start("parallel_checksum", { args = args }):wait()
        assert.equal(1, result.code)
        assert.equal(("cbf43926 9 %s\n"):format(paths[1]), result.stdout)
        assert.matches("/no/such/file: No such file or directory\n$", result.stderr)
      end)
    end)
  end

  it("of no files", function() assert.equal("", examples.output_of("parallel_checksum")) end)
end)
